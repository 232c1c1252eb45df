"""vCPUs apart from their CPUs: KVM cannot destroy one, and creating one takes its time.

So an unplugged one is parked, and the one that is likely needed next is created ahead.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cpufw.errors import HotplugError, KvmError
from cpufw.kvm.native import lib
from cpufw_x86.cpuid import CpuidLeaf, CpuidTable
from cpufw_x86.feature_msrs import feature_words_of
from cpufw_x86.hyperv import PARTITION_MSRS, PROCESSOR_MSRS
from cpufw_x86.kvm import (
    FLAG_SIGNIFICANT_INDEX,
    X86VCPU,
    X86VM,
    CpuidEntry,
    DebugRegs,
    Regs,
    Sregs,
    VcpuEvents,
)
from cpufw_x86.vcpu_setup import VcpuSetup

if TYPE_CHECKING:
    from cpufw.core.hotplug import Slot

# What a guest may have pointed at its memory: Linux Documentation/virt/kvm/x86/msr.rst.
_KVM_MSRS = (0x4B564D00, 0x4B564D01, 0x4B564D02, 0x4B564D03, 0x4B564D04, 0x11, 0x12)
_TSC_ADJUST, _SPEC_CTRL, _DEBUG_CTL, _TSC_DEADLINE, _XSS = 0x3B, 0x48, 0x1D9, 0x6E0, 0xDA0
_PAT, _PAT_AT_RESET = 0x277, 0x0007_0406_0007_0406  # Intel SDM vol. 3A, 12.12.4
_MTRRS = (0x2FF, 0x250, 0x258, 0x259, *range(0x268, 0x270), *range(0x200, 0x210))
_SYSENTER, _SYSCALL = range(0x174, 0x177), range(0xC000_0081, 0xC000_0085)
_KERNEL_GS_BASE, _TSC_AUX = 0xC000_0102, 0xC000_0103

_MSRS_AT_RESET = {
    **dict.fromkeys((*_KVM_MSRS, *_MTRRS, *_SYSENTER, *_SYSCALL), 0),
    **dict.fromkeys((_KERNEL_GS_BASE, _TSC_AUX, _TSC_ADJUST, _SPEC_CTRL), 0),
    **dict.fromkeys((_DEBUG_CTL, _TSC_DEADLINE, _XSS), 0),
    _PAT: _PAT_AT_RESET,
}
"""What guests write, apart from what is in `Sregs` and from the TSC itself (SDM vol. 4, 2.1)."""
_BOOT_CPU = 0  # KVM starts the vCPU with this id by itself, unless told of another


class PowerOnState(NamedTuple):
    """What KVM sets in a vCPU that it creates, the local APIC apart."""

    mp_state: int
    regs: Regs
    sregs: Sregs
    events: VcpuEvents
    debugregs: DebugRegs
    xsave: bytes
    xcrs: Mapping[int, int]

    @classmethod
    def of(cls, vcpu: X86VCPU) -> PowerOnState:
        """Read it from a vCPU that has not run."""
        return cls(
            vcpu.get_mp_state(),
            vcpu.get_regs(),
            vcpu.get_sregs(),
            vcpu.get_vcpu_events(),
            vcpu.get_debugregs(),
            vcpu.get_xsave(),
            vcpu.get_xcrs() if vcpu.vm.check_extension("KVM_CAP_XCRS") else {},
        )


class PooledVcpu:
    """A KVM vCPU with its power-on state, so that it can start afresh as another CPU."""

    def __init__(self, vcpu: X86VCPU, power_on: PowerOnState) -> None:
        self.vcpu = vcpu
        self.has_run = False
        self._setup = VcpuSetup()
        self._cpuid: CpuidTable | None = None
        self._lapic, self._power_on = vcpu.initial_lapic, power_on

    def set_up(self, setup: VcpuSetup, index: int) -> None:
        """Tell the vCPU what it is beside its CPUID, as the machine's CPU `index`.

        A vCPU that has run keeps that for ever: raises `HotplugError` when `setup` differs.
        """
        if setup == self._setup:
            return
        if self.has_run:
            raise HotplugError(
                f"vCPU {self.vcpu.id} has run with other settings, which KVM cannot change; "
                "plug a CPU with the same properties as before"
            )
        setup.apply(self.vcpu, index)
        self._setup = setup

    def set_cpuid(self, table: CpuidTable) -> None:
        """Give the vCPU its CPUID.

        A vCPU that has run keeps its CPUID for ever: raises `HotplugError` when `table` differs.
        """
        if table == self._cpuid:
            return
        if self.has_run:
            raise HotplugError(
                f"vCPU {self.vcpu.id} has run with another CPUID, which KVM cannot change; "
                "plug a CPU with the same properties as before"
            )
        self.vcpu.set_cpuid2(map(_entry, table.values()))
        self._cpuid = table

    def granted_words(self) -> dict[str, int]:
        """The feature words of the CPUID that KVM made of it."""
        return CpuidTable(map(_leaf, self.vcpu.get_cpuid2())).words()

    def set_feature_msrs(self, msrs: Mapping[int, int]) -> dict[str, int]:
        """Set these MSRs; the feature words that they then hold, less those that KVM refused."""
        words: dict[str, int] = {}
        for index, value in msrs.items():
            try:
                self.vcpu.set_msrs({index: value})
                words |= feature_words_of(self.vcpu.get_msrs([index]))
            except KvmError:
                continue  # not granted: the comparison by feature name reports it
        return words

    def ignore_init(self) -> None:
        """Drop an INIT that came while it was parked: guests broadcast them when they boot."""
        # The flag KVM_VCPUEVENT_VALID_SMM is set in what KVM gave; smi.latched_init is 0 there.
        # A start-up IPI without its INIT does nothing.
        self.vcpu.set_vcpu_events(self._power_on.events)

    def reset(self) -> None:
        """Back to the state in which KVM created it; it must not be running."""
        self.vcpu.set_mp_state(self._power_on.mp_state)
        self.vcpu.set_sregs(self._power_on.sregs)
        self.vcpu.set_regs(self._power_on.regs)
        self.vcpu.set_debugregs(self._power_on.debugregs)
        if self._power_on.xcrs:
            self.vcpu.set_xcrs(self._power_on.xcrs)
        self.vcpu.set_xsave(self._power_on.xsave)
        at_reset = _MSRS_AT_RESET
        if self._setup.hyperv is not None:
            at_reset = at_reset | PROCESSOR_MSRS
        self._reset_msrs(at_reset)
        self.vcpu.set_lapic(self._lapic)
        self.vcpu.set_vcpu_events(self._power_on.events)

    def reset_partition(self) -> None:
        """Reset what all vCPUs of a guest of Hyper-V have in common."""
        if self._setup.hyperv is not None:
            self._reset_msrs(PARTITION_MSRS)

    def _reset_msrs(self, at_reset: Mapping[int, int]) -> None:
        now = self.vcpu.get_known_msrs(at_reset)
        changed = {n: at_reset[n] for n, value in now.items() if value != at_reset[n]}
        try:
            self.vcpu.set_msrs(changed)
        except KvmError:  # one that can only be read: each by itself
            for index, value in changed.items():
                with suppress(KvmError):
                    self.vcpu.set_msrs({index: value})


def pooled(slot: Slot) -> PooledVcpu:
    """What runs the CPU in `slot`; there must be one."""
    found: PooledVcpu = slot.cpu.vcpu  # type: ignore[union-attr]
    return found


class VcpuPool:
    """The vCPUs of a VM by APIC id: in use, or parked until a CPU of that id comes (back)."""

    def __init__(self, vm: X86VM) -> None:
        self._vm = vm
        self.parked: dict[int, PooledVcpu] = {}
        self._application_cpu: PowerOnState | None = None
        self._tsc_offset: int | None = None

    def take(self, apic_id: int) -> PooledVcpu:
        """The vCPU with this APIC id, parked before or created now, in its power-on state."""
        parked = self.parked.pop(apic_id, None)
        if parked is not None:
            parked.ignore_init()
            if parked.has_run:
                self._align_tsc(parked.vcpu)
            return parked
        vcpu = self._vm.create_vcpu(apic_id)
        self.learn_tsc_offset(vcpu)
        return PooledVcpu(vcpu, self._power_on_state(vcpu))

    def learn_tsc_offset(self, vcpu: X86VCPU) -> None:
        """The time-stamp counters of the VM count as that of `vcpu`, which must not be running."""
        with suppress(KvmError):  # a kernel that cannot tell how far they are apart
            self._tsc_offset = vcpu.get_tsc_offset()

    def _align_tsc(self, vcpu: X86VCPU) -> None:
        """Undo what a guest did to the vCPU's time-stamp counter: KVM aligns only new ones."""
        # Not read from another vCPU now: while that runs, KVM lets the reader wait.
        if self._tsc_offset is not None:
            vcpu.set_tsc_offset(self._tsc_offset)

    def prepare(self, apic_id: int, table: CpuidTable) -> None:
        """Create the vCPU with this APIC id ahead, with its CPUID set, and park it."""
        if apic_id not in self.parked:
            pooled = self.take(apic_id)
            self.parked[apic_id] = pooled
            pooled.set_cpuid(table)

    def _power_on_state(self, vcpu: X86VCPU) -> PowerOnState:
        if vcpu.id == _BOOT_CPU:
            return PowerOnState.of(vcpu)
        # KVM makes the others all alike.
        if self._application_cpu is None:
            self._application_cpu = PowerOnState.of(vcpu)
        return self._application_cpu

    def park(self, pooled: PooledVcpu) -> None:
        """Keep a vCPU that does not run until it is taken again."""
        if pooled.has_run:
            pooled.reset()  # now, so that plugging it again is quick
        # Waiting for a SIPI it costs the host nothing and gets no interrupts.
        pooled.vcpu.set_mp_state(lib.KVM_MP_STATE_UNINITIALIZED)
        self.parked[pooled.vcpu.id] = pooled


@lru_cache(maxsize=512)  # but for a few leaves the CPUs of a machine have the same
def _entry(leaf: CpuidLeaf) -> CpuidEntry:
    flags = FLAG_SIGNIFICANT_INDEX if leaf.indexed else 0
    return CpuidEntry(leaf.function, leaf.index, flags, *leaf.registers)


@lru_cache(maxsize=512)
def _leaf(entry: CpuidEntry) -> CpuidLeaf:
    return CpuidLeaf(entry.function, entry.index, entry.eax, entry.ebx, entry.ecx, entry.edx)
