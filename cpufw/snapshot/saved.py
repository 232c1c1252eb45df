"""What a board offers so that its machine can be saved, loaded and moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cpufw.core.vmstate import State
from cpufw.errors import StateError
from cpufw.snapshot.pages import Pages

if TYPE_CHECKING:
    from cpufw.core.machine import Machine


class Block(NamedTuple):
    """A piece of guest memory: `size` bytes from guest-physical `address` on."""

    address: int
    size: int


class SavableBoard(Protocol):
    """The state of a board. All but memory is read and set while the CPUs are held."""

    def options(self) -> dict[str, Any]:
        """The options, plain data, with which to make a board that this state fits: no files."""
        ...

    def files(self) -> dict[str, Any]:
        """Those of the options that name files of the host: paths, or lists of what has some."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """In the block no CPU runs, no device works, and the guest's clock stands still.

        Raises `StateError` for a guest that has not begun or has ended.
        """
        ...

    def stay_paused(self) -> None:
        """After the block in which the CPUs are held, the guest is paused."""

    def handed_over(self, message: str) -> None:
        """The guest runs elsewhere, as `message` says: here it never runs again."""

    def sections(self) -> Iterator[tuple[str, State]]:
        """Name and state of each part. Raises `StateError` for what cannot be saved."""
        ...

    def load(self, sections: Mapping[str, State]) -> None:
        """Set all of them on a board that has not begun. Raises `StateError`."""
        ...

    def blocks(self) -> list[Block]:
        """The guest's memory, by address."""
        ...

    def pages(self, block: Block, wanted: bytes | None = None) -> Iterator[Pages]:
        """The pages of a block, all or those in the bitmap `wanted`."""
        ...

    def load_pages(self, pages: Pages) -> None:
        """Put them into memory. Raises `StateError` where there is none."""
        ...

    def log_dirty_pages(self, on: bool) -> None:
        """Begin to note which pages are written, or stop it."""

    def dirty_pages(self, block: Block) -> bytes:
        """The bitmap of the pages of a block that were written since the last call."""
        ...


def state_of(machine: Machine) -> SavableBoard:
    """The state of a machine's board. Raises `StateError` where there is nothing to save."""
    state: SavableBoard | None = getattr(machine.board, "state", None)
    if state is None:
        raise StateError(f"machine type {machine.machine_type.name} has no guest to save")
    return state
