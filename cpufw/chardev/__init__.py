"""Character devices: where a guest's serial ports and consoles lead on the host."""

from .chardev import Chardev, NullChardev, SinkChardev
from .loop import EventLoop
from .parse import FORMS, parse_chardev

__all__ = ["FORMS", "Chardev", "EventLoop", "NullChardev", "SinkChardev", "parse_chardev"]
