"""The state of a PC board: everything but memory, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from cpufw.core.board import Outcome
from cpufw.core.vmstate import State, VMState
from cpufw.errors import KvmError, StateError
from cpufw_x86.kvm import X86VCPU
from cpufw_x86.state.chips import (
    ClockState,
    FwCfgFilesState,
    IrqchipState,
    PitState,
    RomState,
)
from cpufw_x86.state.memory import SavedMemory
from cpufw_x86.state.msrs import TSC, MsrList
from cpufw_x86.state.vcpu import VcpuState

if TYPE_CHECKING:
    from cpufw_x86.pc import PcBoard

# Options that a guest can notice, if only after a reset; the others are the host's affair.
_FILES = ("kernel", "initrd", "firmware", "drives")
_GUEST_OPTIONS = (
    "memory",
    "append",
    "protocol",
    "entry_mode",
    "load_address",
    "rng",
    "numa",
    "kernel_irqchip",
    "serial_ports",
    "reboot",
    "on_crash",
)
# Whoever runs guests of its own has state that is not saved.
_NESTING = ("svm", "vmx")
_LAST_WORDS = 1.0  # seconds that serial output may take to be read; what is left is not saved


class PcState(SavedMemory):
    """The state of `board`; see `cpufw.snapshot.saved.SavableBoard`."""

    def __init__(self, board: PcBoard) -> None:
        super().__init__(board.vm, board.ram)
        self._board = board
        self._loaded: dict[int, VcpuState] = {}
        self._clock = ClockState()
        self._stays_paused = False
        self._msrs = MsrList(board.vm.kvm)  # type: ignore[arg-type]

    def options(self) -> dict[str, Any]:
        """See SavableBoard."""
        given = self._board.options
        options = {name: _plain(getattr(given, name)) for name in _GUEST_OPTIONS}
        return {**options, "virtio_console": True if given.virtio_console else None}

    def files(self) -> dict[str, Any]:
        """See SavableBoard."""
        return {name: _plain(getattr(self._board.options, name)) for name in _FILES}

    @contextmanager
    def held(self) -> Iterator[None]:
        """See SavableBoard."""
        board = self._board
        with board.held(), ExitStack() as stack:
            status = board.status
            if status not in ("running", "paused"):
                raise StateError(
                    f"the guest cannot be saved: it is {status}, not running or paused"
                )
            if status == "running":
                board.pause()
                stack.callback(self._resume)
            board.chipset.serial.flush(_LAST_WORDS)
            yield

    def _resume(self) -> None:
        if self._stays_paused:
            self._stays_paused = False
        else:
            self._board.resume()

    def stay_paused(self) -> None:
        """See SavableBoard."""
        self._stays_paused = True

    def handed_over(self, message: str) -> None:
        """See SavableBoard."""
        self._stays_paused = True
        self._board.end(Outcome("migrated", 0, message))

    # --- save -----------------------------------------------------------------------------

    def sections(self) -> Iterator[tuple[str, State]]:
        """See SavableBoard."""
        board = self._board
        ioapic = board.chipset.irqchip.ioapic
        kept_lstar = board.assist.kept_lstar
        devices = self._devices()
        # Timers and users raise interrupts meanwhile. What sends them is read before what they go
        # to, and the devices last, which drive their lines anew when they are loaded: so one is
        # found twice at worst, which makes one, and never lost. Nobody waits for a reader between
        # two vCPUs: their time-stamp counters would come apart.
        controllers = _saved({**self._chips(), **{n: d for n, d in devices.items() if d is ioapic}})
        vcpus: dict[str, State] = {}
        for apic_id, vcpu in self._vcpus().items():
            state = VcpuState.read(vcpu, self._msrs)
            state.guest_lstar = kept_lstar.get(vcpu.id, 0)
            vcpus[f"vcpu/{apic_id}"] = VcpuState.vmstate.save(state)
        yield from vcpus.items()
        yield from controllers.items()
        yield "kvmclock", ClockState.vmstate.save(ClockState(board.paused_clock))
        yield from _saved({n: d for n, d in devices.items() if d is not ioapic}).items()

    def _vcpus(self) -> dict[int, X86VCPU]:
        found = {}
        for slot in self._board.machine.slots:
            if slot.cpu is not None:
                nesting = [name for name in _NESTING if name in slot.cpu.granted]
                if nesting:
                    raise StateError(
                        f"a guest whose CPU has {nesting[0]} cannot be saved: the state of guests "
                        f"that it runs itself would be lost; give it -{nesting[0]}"
                    )
                found[slot.arch_id] = slot.cpu.vcpu.vcpu  # type: ignore[attr-defined]
        return found

    def _chips(self) -> dict[str, Any]:
        vm, chipset = self._board.vm, self._board.chipset
        chips = {"rom": RomState(self._board.ram), "fw-cfg-files": FwCfgFilesState(chipset.fw_cfg)}
        if not chipset.irqchip.has_pic:
            return chips  # the I/O APIC is a device, and there is no PIT
        return {"irqchip": IrqchipState(vm), "pit": PitState(vm), **chips}

    def _devices(self) -> dict[str, Any]:
        chipset = self._board.chipset
        ioapic = chipset.irqchip.ioapic
        devices: list[Any] = [
            *([ioapic] if ioapic is not None else []),
            *chipset.serial.ports,
            *chipset.devices,
            *chipset.virtio.transports,
        ]
        names = [device.vmstate.name for device in devices]
        numbers = [names[:index].count(name) for index, name in enumerate(names)]
        return {
            f"device/{name}" + (f"-{number}" if number else ""): device
            for name, number, device in zip(names, numbers, devices, strict=True)
        }

    # --- load -----------------------------------------------------------------------------

    def load(self, sections: Mapping[str, State]) -> None:
        """See SavableBoard."""
        vcpus, chips, devices = self._vcpus(), self._chips(), self._devices()
        needed = [*(f"vcpu/{apic_id}" for apic_id in vcpus), *chips, "kvmclock"]
        for name in needed:
            if name not in sections:
                raise StateError(f"the saved state lacks its part {name}")
        for name in sections:
            if name not in needed and name not in devices:
                raise StateError(
                    f"the saved state has a part {name}, which this machine does not have: "
                    "load it with a newer cpufw"
                )
        # The local APICs before what sends them interrupts.
        for apic_id, vcpu in vcpus.items():
            state = self._loaded[apic_id] = VcpuState()
            VcpuState.vmstate.load(state, sections[f"vcpu/{apic_id}"])
            state.write(vcpu)
            if state.guest_lstar:
                self._board.assist.restore_lstar(vcpu, state.guest_lstar)
        for name, thing in (*chips.items(), *devices.items()):
            if name in sections:  # a device that older versions did not have begins as new
                vmstate: VMState = thing.vmstate
                try:
                    vmstate.load(thing, sections[name])
                except KvmError as error:
                    raise StateError(f"this host's KVM does not take {name}: {error}") from None
        ClockState.vmstate.load(self._clock, sections["kvmclock"])

    @property
    def is_loaded(self) -> bool:
        """Whether the guest goes on from a saved state rather than beginning anew."""
        return bool(self._loaded)

    def begin(self) -> None:
        """Set the times, now that the guest is about to go on."""
        vcpus = self._vcpus()
        for apic_id, state in self._loaded.items():
            state.write_time(vcpus[apic_id])
        # A CPU that is plugged later must count from the same time.
        first = self._board.machine.slots[0].arch_id
        self._board.pool.learn_tsc_offset(vcpus[first])
        for parked in self._board.pool.parked.values():
            parked.vcpu.set_msrs({TSC: self._loaded[first].msrs[TSC]})
        self._clock.write(self._board.vm)
        self._loaded.clear()
        virtio = self._board.chipset.virtio
        virtio.pause()
        virtio.resume()  # which looks for what the guest asked for before it was saved


def _saved(things: Mapping[str, Any]) -> dict[str, State]:
    return {name: thing.vmstate.save(thing) for name, thing in things.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)
