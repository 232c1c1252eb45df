"""Commands about the CPUs that there are, and their hot-plug."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from cpufw.errors import NotFoundError
from cpufw.monitor.command import command
from cpufw.monitor.errors import DeviceNotFoundError
from cpufw.monitor.monitor import Monitor

SysEmuTarget = Literal[
    "aarch64", "alpha", "arm", "avr", "hppa", "i386", "loongarch64", "m68k", "microblaze",
    "microblazeel", "mips", "mips64", "mips64el", "mipsel", "or1k", "ppc", "ppc64", "riscv32",
    "riscv64", "rx", "s390x", "sh4", "sh4eb", "sparc", "sparc64", "tricore", "x86_64", "xtensa",
    "xtensaeb",
]  # fmt: skip
CpuInstanceProperties = TypedDict(
    "CpuInstanceProperties",
    {
        "node-id": NotRequired[int],
        "drawer-id": NotRequired[int],
        "book-id": NotRequired[int],
        "socket-id": NotRequired[int],
        "die-id": NotRequired[int],
        "cluster-id": NotRequired[int],
        "module-id": NotRequired[int],
        "core-id": NotRequired[int],
        "thread-id": NotRequired[int],
    },
)
CpuInfoFast = TypedDict(
    "CpuInfoFast",
    {
        "cpu-index": int,
        "qom-path": str,
        "thread-id": int,
        "props": NotRequired[CpuInstanceProperties],
        "target": SysEmuTarget,
    },
)
HotpluggableCPU = TypedDict(
    "HotpluggableCPU",
    {
        "type": str,
        "vcpus-count": int,
        "props": CpuInstanceProperties,
        "qom-path": NotRequired[str],
    },
)


class TargetInfo(TypedDict):
    arch: SysEmuTarget


@command("query-target")
def query_target(monitor: Monitor) -> TargetInfo:
    """The architecture of the guest."""
    return {"arch": monitor.machine.cpu_class.arch}  # type: ignore[typeddict-item]


@command("query-cpus-fast")
def query_cpus_fast(monitor: Monitor) -> list[CpuInfoFast]:
    """The CPUs that are plugged, in order."""
    machine = monitor.machine
    target = machine.cpu_class.arch
    with machine.hotplug.lock:
        return [
            {
                "cpu-index": slot.index,
                "qom-path": slot.cpu.path,
                "thread-id": machine.board.thread_id(slot),
                "props": machine.place_of(slot),  # type: ignore[typeddict-item]
                "target": target,  # type: ignore[typeddict-item]
            }
            for slot in machine.slots
            if slot.cpu is not None
        ]


@command("query-hotpluggable-cpus")
def query_hotpluggable_cpus(monitor: Monitor) -> list[HotpluggableCPU]:
    """Every place for a CPU, highest first, with the CPU that is there."""
    with monitor.machine.hotplug.lock:
        return monitor.machine.hotpluggable_cpus()  # type: ignore[return-value]


@command("device_add", blocks=True, features=("json-cli", "json-cli-hotplug"))
def device_add(
    monitor: Monitor,
    driver: str,
    bus: str | None = None,
    id: str | None = None,
    **properties: Any,
) -> None:
    """Plug a device: a CPU of the machine's type, in the slot that its properties name."""
    named = {name.replace("-", "_"): value for name, value in properties.items()}
    monitor.machine.device_add(driver, id=id or "", **named)


@command("device_del", blocks=True)
def device_del(monitor: Monitor, id: str) -> None:
    """Ask the guest to give a device up; the event DEVICE_DELETED says that it did."""
    try:
        monitor.machine.device_del(id)
    except NotFoundError:
        raise DeviceNotFoundError(f"Device '{id}' not found") from None
