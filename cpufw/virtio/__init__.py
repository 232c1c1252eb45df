"""virtio devices over memory-mapped registers (VIRTIO 1.2), neutral to the architecture."""

from .block import BlockDevice
from .console import ConsoleDevice
from .device import VirtioDevice
from .drive import Drive
from .image import RawImage
from .memory import GuestMemoryAccess
from .mmio import REGISTER_BYTES, VirtioMmio
from .rng import EntropyDevice

__all__ = [
    "REGISTER_BYTES",
    "BlockDevice",
    "ConsoleDevice",
    "Drive",
    "EntropyDevice",
    "GuestMemoryAccess",
    "RawImage",
    "VirtioDevice",
    "VirtioMmio",
]
