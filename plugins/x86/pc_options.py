"""What a user can ask of the machine type `pc`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cpufw.chardev import Chardev, NullChardev, SinkChardev
from cpufw.errors import UsageError
from cpufw.virtio import Drive
from cpufw_x86.devices import parse_fw_cfg
from cpufw_x86.memory import parse_size

ON_CRASH = ("report", "reset", "pause")
ON_PANIC = (*ON_CRASH, "ignore")


@dataclass(frozen=True)
class PcOptions:
    """The options of `pc`, checked.

    `memory` in bytes; `kernel` with `initrd`, `append` and `protocol` as `cpufw_x86.boot` takes
    them; `firmware` an image that ends at 4 GiB; `serial` are what COM1 to COM4 lead to, a function
    is called with what the guest sends to COM1. `assist`: whether cpufw finishes instructions that
    KVM cannot. `pin`: vCPU index to the CPUs of the host that it may run on. `reboot` off: a reset
    by the guest ends the run.
    `on_crash`: what a guest that triple-faults comes to, and unless there is `on_panic` one that
    says that it panicked. `watchdog`: seconds in which each vCPU's
    thread has to show that it can be stopped; 0: nobody asks. `kernel_irqchip`: one of
    `cpufw_x86.irqchip.IRQCHIPS`, None for what the APIC ids need. `drives`, as `Drive` or in its
    text, `virtio_console` and `rng` are virtio devices; a console that is True leads nowhere.
    `serial_ports`: how many there are at least; those that `serial` does not name lead nowhere.
    `fw_cfg`: files, as (name, data) or in the text that `parse_fw_cfg` takes.
    `incoming`: memory and registers come from a saved machine, so nothing is put there.
    """

    memory: int = 128 << 20
    memory_backend: str = "anonymous"
    kernel: Path | None = None
    initrd: str | None = None
    append: str = ""
    protocol: str | None = None
    entry_mode: str | None = None
    load_address: int | None = None
    firmware: Path | None = None
    serial: Sequence[Chardev] = ()
    drives: Sequence[Drive] = ()
    virtio_console: Chardev | None = None
    rng: bool = False
    fw_cfg: Sequence[tuple[str, bytes]] = ()
    numa: Sequence[str] = ()
    pin: Mapping[int, frozenset[int]] = field(default_factory=dict)
    assist: str = "auto"
    kernel_irqchip: str | None = None
    reboot: bool = True
    on_crash: str = "report"
    on_panic: str | None = None
    watchdog: float = 0
    serial_ports: int = 1
    incoming: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> PcOptions:
        """Take `given`, where None means the default. Raises `UsageError` naming what is wrong."""
        known = [each.name for each in fields(cls)]
        for name in given:
            if name not in known:
                raise UsageError(f"machine type pc has no option '{name}', only {', '.join(known)}")
        values = {name: value for name, value in given.items() if value is not None}
        if "memory" in values:
            values["memory"] = parse_size(values["memory"])
        for name in ("kernel", "firmware"):
            if name in values:
                values[name] = Path(values[name])
        values["drives"] = tuple(
            each if isinstance(each, Drive) else Drive.parse(each)
            for each in values.get("drives", ())
        )
        values["fw_cfg"] = tuple(
            parse_fw_cfg(each) if isinstance(each, str) else each
            for each in values.get("fw_cfg", ())
        )
        serial = values.get("serial", ())
        if callable(serial):
            serial = SinkChardev(serial)
        # COM1 is always there: guests expect one, and it may lead nowhere.
        ports = [serial] if isinstance(serial, Chardev) else list(serial)
        ports += [NullChardev() for _ in range(values.get("serial_ports", 1) - len(ports))]
        values["serial"], values["serial_ports"] = tuple(ports), len(ports)
        if values.get("virtio_console") is True:
            values["virtio_console"] = NullChardev()
        options = cls(**values)
        if options.on_crash not in ON_CRASH:
            raise UsageError(f"on_crash '{options.on_crash}' is not one of {', '.join(ON_CRASH)}")
        if options.on_panic not in (None, *ON_PANIC):
            raise UsageError(f"on_panic '{options.on_panic}' is not one of {', '.join(ON_PANIC)}")
        return options
