"""What a device asks of the guest's memory."""

from __future__ import annotations

from typing import Protocol


class GuestMemoryAccess(Protocol):
    """The guest's RAM as a device sees it: it may be asked from several threads at once."""

    def view(self, address: int, size: int) -> memoryview:
        """`size` bytes of RAM at guest-physical `address`, writable and shared with the guest.

        Raises `LookupError` where these bytes are not all RAM and next to each other.
        """
        ...

    def wrote(self, address: int, size: int) -> None:
        """Take note that a device wrote there; KVM's dirty log does not see such writes."""
        ...
