"""Commands about the guest's memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

from cpufw.monitor.command import command
from cpufw.monitor.errors import QmpError
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.schema import Uint16, Uint64

if TYPE_CHECKING:
    from cpufw.core.hotplug import Slot

_CHUNK = 1 << 20

MemoryInfo = TypedDict("MemoryInfo", {"base-memory": Uint64, "plugged-memory": NotRequired[Uint64]})
HostMemPolicy = Literal["default", "preferred", "bind", "interleave"]
Memdev = TypedDict(
    "Memdev",
    {
        "id": NotRequired[str],
        "size": Uint64,
        "merge": bool,
        "dump": bool,
        "prealloc": bool,
        "share": bool,
        "reserve": NotRequired[bool],
        "host-nodes": list[Uint16],
        "policy": HostMemPolicy,
    },
)


@command("query-memory-size-summary")
def query_memory_size_summary(monitor: Monitor) -> MemoryInfo:
    """Bytes of memory that the guest has; none is ever plugged."""
    return {"base-memory": monitor.machine.board.memory_size, "plugged-memory": 0}


@command("query-memdev")
def query_memdev(monitor: Monitor) -> list[Memdev]:
    """The memory behind the guest's RAM."""
    machine = monitor.machine
    if not machine.board.memory_size:
        return []
    return [
        {
            "id": machine.machine_type.ram_id,
            "size": machine.board.memory_size,
            "merge": True,
            "dump": True,
            "prealloc": False,
            "share": False,
            "reserve": False,
            "host-nodes": [],
            "policy": "default",
        }
    ]


@command("memsave", blocks=True)
def memsave(
    monitor: Monitor, val: int, size: int, filename: str, cpu_index: int | None = None
) -> None:
    """Write `size` bytes of memory from the address `val`, as a CPU sees it, to a file."""
    slots = {slot.index: slot for slot in monitor.machine.slots if slot.cpu is not None}
    slot = slots.get(cpu_index or 0)
    if slot is None:
        raise QmpError("Parameter 'cpu-index' expects a CPU number")
    _save(monitor, slot, val, size, filename, physical=False)


@command("pmemsave", blocks=True)
def pmemsave(monitor: Monitor, val: int, size: int, filename: str) -> None:
    """Write `size` bytes of memory from the physical address `val` to a file."""
    _save(monitor, monitor.machine.slots[0], val, size, filename, physical=True)


def _save(
    monitor: Monitor, slot: Slot, address: int, size: int, filename: str, *, physical: bool
) -> None:
    if size < 0 or not 0 <= address < 1 << 63:
        raise _no_memory(address, size)
    board = monitor.machine.board
    try:
        with board.held(), Path(filename).open("wb") as file:
            for start in range(address, address + size, _CHUNK):
                wanted = min(_CHUNK, address + size - start)
                data = board.read_memory(slot, start, wanted, physical)
                if len(data) < wanted:
                    raise _no_memory(start, wanted)
                file.write(data)
    except OSError as error:
        raise QmpError(f"Could not open '{filename}': {error.strerror}") from None


def _no_memory(address: int, size: int) -> QmpError:
    return QmpError(f"Invalid addr 0x{address & ((1 << 64) - 1):016x}/size {size} specified")
