r"""Processors in the namespace, and how they come and go: `\_SB.CPUS`.

It drives the hot-plug registers of `devices.cpu_hotplug` (QEMU docs/specs/acpi_cpu_hotplug, the
modern interface). On general-purpose event 2 the scan asks the registers for the next CPU with an
event until there is none, so its cost follows the events and not the number of slots.
"""

from __future__ import annotations

from collections.abc import Sequence

from cpufw_x86.acpi.aml import (
    BYTE_ACCESS,
    DWORD_ACCESS,
    PRESERVE,
    SYSTEM_IO,
    WRITE_AS_ZEROS,
    acquire,
    argument,
    break_,
    buffer,
    call,
    device,
    eisa_id,
    else_,
    field,
    if_,
    less,
    local,
    method,
    mutex,
    named,
    notify,
    operation_region,
    release,
    return_,
    scope,
    store,
    string,
    while_,
)
from cpufw_x86.acpi.config import AcpiCpu
from cpufw_x86.acpi.madt import ENABLED, processor_entry
from cpufw_x86.devices.cpu_hotplug import CPU_HOTPLUG_GPE, CPU_HOTPLUG_PORT

_REGISTER_BYTES = 12
_DEVICE_CHECK, _EJECT_REQUEST = 1, 3  # ACPI 6.5, 5.6.6
_OST_EVENT, _OST_STATUS, _NEXT_WITH_EVENT = 1, 2, 0  # values of the command register
_PRESENT_AND_WORKING = 0b1111  # ACPI 6.5, 6.3.7


def cpu_name(index: int) -> str:
    """The name of a slot's processor device; there are 4,096 of them."""
    return f"C{index:03X}"


def processors(cpus: Sequence[AcpiCpu]) -> bytes:
    r"""`\_SB.CPUS` with a device for every slot, and the handler of the hot-plug event."""
    container = device(
        "CPUS",
        named("_HID", string("ACPI0010")),
        named("_CID", eisa_id("PNP0A05")),
        *_registers(),
        *_methods(),
        _notify_method(cpus),
        *map(_processor, cpus),
    )
    handler = method(f"_E{CPU_HOTPLUG_GPE:02X}", 0, call(r"\_SB.CPUS.SCAN"))
    return scope(r"\_SB", container) + scope(r"\_GPE", handler)


def _registers() -> list[bytes]:
    return [
        operation_region("REGS", SYSTEM_IO, CPU_HOTPLUG_PORT, _REGISTER_BYTES),
        field("REGS", DWORD_ACCESS, PRESERVE, ("SEL", 32), ("", 32), ("DATA", 32)),
        field(
            "REGS",
            BYTE_ACCESS,
            WRITE_AS_ZEROS,
            ("", 32),
            ("ENAB", 1),
            ("INSE", 1),
            ("REMO", 1),
            ("EJCT", 1),
            ("", 4),
            ("CMND", 8),
        ),
        mutex("MUTX"),
    ]


def _methods() -> list[bytes]:
    """What the processors' methods have in common; the first argument is the CPU index."""
    index, event, status = argument(0), argument(1), argument(2)
    state = local(0)
    return [
        # The modern interface is chosen, where there is an older one, by writing 0 here.
        method("_INI", 0, store(0, "SEL")),
        _locked(
            "STAT",
            1,
            store(index, "SEL"),
            store(0, state),
            if_("ENAB", store(_PRESENT_AND_WORKING, state)),
            returns=state,
        ),
        _locked("EJEC", 1, store(index, "SEL"), store(1, "EJCT")),
        _locked(
            "REPO",
            3,
            store(index, "SEL"),
            store(_OST_EVENT, "CMND"),
            store(event, "DATA"),
            store(_OST_STATUS, "CMND"),
            store(status, "DATA"),
        ),
        _locked(
            "SCAN",
            0,
            store(0, "SEL"),
            while_(
                1,
                store(_NEXT_WITH_EVENT, "CMND"),
                if_("INSE", store(1, "INSE"), call("TELL", "DATA", _DEVICE_CHECK)),
                else_(
                    if_("REMO", store(1, "REMO"), call("TELL", "DATA", _EJECT_REQUEST)),
                    else_(break_()),
                ),
            ),
        ),
    ]


def _locked(name: str, arguments: int, *terms: bytes, returns: bytes | None = None) -> bytes:
    result = () if returns is None else (return_(returns),)
    body = (acquire("MUTX"), *terms, release("MUTX"), *result)
    return method(name, arguments, *body, serialized=True)


def _notify_method(cpus: Sequence[AcpiCpu]) -> bytes:
    """Method TELL: notify the processor with index Arg0 of event Arg1.

    Notify takes a name, not a number, so the method has to choose among all; by halves.
    """

    def choose(part: Sequence[AcpiCpu]) -> bytes:
        if len(part) == 1:
            return notify(cpu_name(part[0].index), argument(1))
        middle = len(part) // 2
        below = if_(less(argument(0), part[middle].index), choose(part[:middle]))
        return below + else_(choose(part[middle:]))

    return method("TELL", 2, choose(cpus))


def _processor(cpu: AcpiCpu) -> bytes:
    index = cpu.index
    terms = [
        named("_HID", string("ACPI0007")),
        named("_UID", index),
        method("_STA", 0, return_(call("STAT", index))),
        # Read when the CPU is there: an entry that is not enabled would be passed over.
        named("_MAT", buffer(processor_entry(cpu, ENABLED))),
        method("_OST", 3, call("REPO", index, argument(0), argument(1))),
    ]
    if cpu.removable:
        terms.append(method("_EJ0", 1, call("EJEC", index)))
    if cpu.node is not None:
        terms.append(named("_PXM", cpu.node))
    return device(cpu_name(index), *terms)
