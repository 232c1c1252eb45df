"""Which kind of KVM is below."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from cpufw.errors import KvmError
from cpufw_x86.kvm import X86VCPU, CpuidEntry

if TYPE_CHECKING:
    from cpufw.kvm import KVM

# A CPU of ours with nothing but the hypervisor bit, so that what KVM adds stands out.
_BARE = (
    CpuidEntry(0, 0, 0, 7, 0x756E6547, 0x6C65746E, 0x49656E69),  # GenuineIntel
    CpuidEntry(1, 0, 0, 0x6FB, 0, 1 << 31, 0),
    CpuidEntry(7, 0, 1, 0, 0, 0, 0),
)
_MADE_BY_KVM = 1 << 27  # OSXSAVE of leaf 1 ECX follows CR4 on every KVM


def is_pvm(kvm: KVM) -> bool:
    """Whether this KVM runs guests without VMX and SVM: ring 0 in an emulator, ring 3 natively.

    Told by a host without either whose KVM gives a guest CPUID bits that nobody set.
    """
    return not host_has_hardware_virtualization() and _cpuid_is_changed(kvm)


@lru_cache(maxsize=1)
def host_has_hardware_virtualization() -> bool:
    """Whether /proc/cpuinfo shows vmx or svm; True if it cannot be read."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
        for line in text.splitlines():
            if line.startswith("flags"):
                return bool({"vmx", "svm"} & set(line.split()))
    return True


def _cpuid_is_changed(kvm: KVM) -> bool:
    try:
        with kvm.create_vm() as vm, vm.create_vcpu(0) as vcpu:
            assert isinstance(vcpu, X86VCPU)
            vcpu.set_cpuid2(_BARE)
            granted = {(e.function, e.index): e for e in vcpu.get_cpuid2()}
    except KvmError:
        return False
    return any(
        _words(granted.get((asked.function, asked.index))) != _words(asked) for asked in _BARE[1:]
    )


def _words(entry: CpuidEntry | None) -> tuple[int, int, int] | None:
    if entry is None:
        return None
    return entry.ebx, entry.ecx & ~_MADE_BY_KVM, entry.edx
