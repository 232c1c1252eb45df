"""Commands about the CPUs that there are, and their hot-plug."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from cpufw.monitor.command import command
from cpufw.monitor.errors import QmpError
from cpufw.monitor.event_types import ACPIOSTInfo
from cpufw.monitor.events import ost_info
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.plugging import plug, unplug
from cpufw.monitor.schema import Variants

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
S390CpuEntitlement = Literal["auto", "low", "medium", "high"]
S390CpuState = Literal["uninitialized", "stopped", "check-stop", "operating", "load"]
CpuInfoFastBase = TypedDict(
    "CpuInfoFastBase",
    {
        "cpu-index": int,
        "qom-path": str,
        "thread-id": int,
        "props": NotRequired[CpuInstanceProperties],
        "target": SysEmuTarget,
    },
)
CpuInfoS390 = TypedDict(
    "CpuInfoS390",
    {
        "cpu-state": S390CpuState,
        "dedicated": NotRequired[bool],
        "entitlement": NotRequired[S390CpuEntitlement],
    },
)
CpuInfoFast = Annotated[CpuInfoFastBase, Variants("target", {"s390x": CpuInfoS390})]
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
    """The CPUs that are plugged, in the order in which they came."""
    machine = monitor.machine
    target = machine.cpu_class.arch
    with machine.hotplug.lock:
        cpus: list[Any] = [
            {
                "cpu-index": slot.index,
                "qom-path": slot.cpu.path,
                "thread-id": machine.board.thread_id(slot),
                "props": machine.place_of(slot),
                "target": target,
                **slot.cpu.run_facts(),
            }
            for slot in sorted(machine.slots, key=lambda slot: slot.plugged)
            if slot.cpu is not None
        ]
    return cpus


@command("query-hotpluggable-cpus")
def query_hotpluggable_cpus(monitor: Monitor) -> list[HotpluggableCPU]:
    """Every place for a CPU, highest first, with the CPU that is there."""
    machine = monitor.machine
    if not machine.machine_type.hotpluggable_cpus:
        raise QmpError("machine does not support hot-plugging CPUs")
    with machine.hotplug.lock:
        return machine.hotpluggable_cpus()  # type: ignore[return-value]


@command("device_add", blocks=True, features=("json-cli", "json-cli-hotplug"))
def device_add(
    monitor: Monitor,
    driver: str,
    bus: str | None = None,
    id: str | None = None,
    **properties: Any,
) -> None:
    """Plug a device: a CPU of the machine's type, in the place that its properties name."""
    plug(monitor, driver, id or "", properties, bus or "", typed=True)


@command("device_del", blocks=True)
def device_del(monitor: Monitor, id: str) -> None:
    """Ask the guest to give a device up; the event DEVICE_DELETED says that it did.

    `id` may also be its path.
    """
    unplug(monitor, id)


@command("query-acpi-ospm-status")
def query_acpi_ospm_status(monitor: Monitor) -> list[ACPIOSTInfo]:
    """What the guest last said of each place for a CPU, by ACPI's _OST; none before it runs."""
    if monitor.machine.status == "prelaunch":
        return []
    with monitor.machine.hotplug.lock:
        return [ost_info(*said) for said in monitor.machine.board.ospm_status()]
