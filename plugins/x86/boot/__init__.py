"""Boot protocols: what an image is, what it finds in memory, and how it is entered."""

from cpufw_x86.boot.cpu_start import EntryMode
from cpufw_x86.boot.guest_image import GuestImage
from cpufw_x86.boot.load import PROTOCOLS, BootProtocol, load_guest

__all__ = ["PROTOCOLS", "BootProtocol", "EntryMode", "GuestImage", "load_guest"]
