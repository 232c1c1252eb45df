"""x86 hosts captured: read through KVM and from the CPU itself, or from other programs' dumps."""

from __future__ import annotations

import os
import platform
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cpufw.core.accel import Accelerator
from cpufw.core.capture import HostCapture, LibvirtHost, Tsc, Words, word_of
from cpufw.core.cpu import CPUState
from cpufw.core.features import Feature, FeatureSet, FeatureTable
from cpufw.core.model import Expansion
from cpufw.errors import AcceleratorError, KvmError
from cpufw.version import __version__
from cpufw_x86.accelerator import DEFAULT_OFF, DEFAULT_ON, X86KvmAccelerator
from cpufw_x86.configuration import identity_of
from cpufw_x86.cpu import X86CPU
from cpufw_x86.cpuid import INDEXED_FUNCTIONS, CpuidLeaf, CpuidTable
from cpufw_x86.dumps import (
    CPUID,
    HOST_CPUID,
    read_cpuid_raw,
    read_firecracker,
    read_libvirt,
    without_apic_ids,
)
from cpufw_x86.properties import address_bits
from cpufw_x86.synthesis import CpuidTemplate
from cpufw_x86.vcpu_setup import capabilities_of
from cpufw_x86.words import feature_words
from cpufw_x86.xsave import components

_CPUID_DEVICE = Path("/dev/cpu/0/cpuid")
_CPUINFO = Path("/proc/cpuinfo")

MSR_NAMES = {
    0x8B: "IA32_BIOS_SIGN_ID",
    0xCE: "MSR_PLATFORM_INFO",
    0xCF: "IA32_CORE_CAPABILITIES",
    0x10A: "IA32_ARCH_CAPABILITIES",
    0x345: "IA32_PERF_CAPABILITIES",
    0x480: "IA32_VMX_BASIC",
    0x481: "IA32_VMX_PINBASED_CTLS",
    0x482: "IA32_VMX_PROCBASED_CTLS",
    0x483: "IA32_VMX_EXIT_CTLS",
    0x484: "IA32_VMX_ENTRY_CTLS",
    0x485: "IA32_VMX_MISC",
    0x486: "IA32_VMX_CR0_FIXED0",
    0x487: "IA32_VMX_CR0_FIXED1",
    0x488: "IA32_VMX_CR4_FIXED0",
    0x489: "IA32_VMX_CR4_FIXED1",
    0x48A: "IA32_VMX_VMCS_ENUM",
    0x48B: "IA32_VMX_PROCBASED_CTLS2",
    0x48C: "IA32_VMX_EPT_VPID_CAP",
    0x48D: "IA32_VMX_TRUE_PINBASED_CTLS",
    0x48E: "IA32_VMX_TRUE_PROCBASED_CTLS",
    0x48F: "IA32_VMX_TRUE_EXIT_CTLS",
    0x490: "IA32_VMX_TRUE_ENTRY_CTLS",
    0x491: "IA32_VMX_VMFUNC",
    0xC0011029: "DE_CFG",
}
"""What the manuals call the feature MSRs (Intel SDM vol. 4, table 2-2; AMD PPR)."""

# Functions whose subleaf 0 says in EAX which is the last subleaf (Intel SDM vol. 2A, CPUID).
_COUNTED_SUBLEAVES = frozenset({0x7, 0x14, 0x17, 0x18, 0x1D, 0x20, 0x24})
# Functions whose subleaves end with one of type 0 in this register (0 = EAX) under this mask.
_TYPED_SUBLEAVES = {
    0x4: (0, 0x1F),
    0x8000001D: (0, 0x1F),
    0xB: (2, 0xFF00),
    0x1F: (2, 0xFF00),
    0x80000026: (2, 0xFF00),
}
_MOST_SUBLEAVES = 64  # leaf 0xD has one for each bit of XCR0 and IA32_XSS

# MSR.480 to MSR.491 hold VMX's capabilities, leaf 0x8000000A SVM's.
_NESTED_WORDS = re.compile(r"MSR\.4(8[0-9A-F]|9[01])|8000000A\.EDX")


class X86CaptureRules:
    """What x86 knows about capturing its hosts; see `cpufw.core.capture.CaptureRules`."""

    msr_names: Mapping[int, str] = MSR_NAMES

    def capture(self, name: str, accelerator: Accelerator, table: FeatureTable) -> HostCapture:
        """This host through KVM; its CPU's own CPUID where /dev/cpu/0/cpuid can be read."""
        if not isinstance(accelerator, X86KvmAccelerator):
            raise AcceleratorError(f"accelerator {accelerator.name} is not captured, only kvm is")
        features = accelerator.supported_features(table)
        raw = {CPUID: without_apic_ids(accelerator.cpuid).to_raw()}
        own = host_cpuid()
        if own is not None:
            raw[HOST_CPUID] = without_apic_ids(own).to_raw()
            cpu_features = feature_words(table).decode(own.words())
        else:
            cpu_features = cpuinfo_features(table)
        return HostCapture(
            name=name,
            arch=table.arch,
            source=f"{accelerator.kvm.name} and {_CPUID_DEVICE if own else _CPUINFO}",
            features=tuple(features),
            identity=dict(accelerator.host_identity()),
            rules=self,
            accelerator=accelerator.name,
            withheld=tuple(cpu_features - features),
            tsc=_tsc(accelerator),
            msrs=dict(accelerator.feature_msrs),
            raw=raw,
            system={
                "cpufw": __version__,
                "kernel": platform.release(),
                "microcode": _cpuinfo_value("microcode"),
            },
            accelerator_capabilities={
                name: value for name, value in accelerator.capabilities().items() if value
            },
        )

    def read(
        self, name: str, document: str | Mapping[str, Any], table: FeatureTable
    ) -> HostCapture | None:
        """A host from `cpuid -r` or from a Firecracker fingerprint or CPU template dump."""
        if isinstance(document, str):
            found = read_cpuid_raw(name, document, table)
        else:
            found = read_firecracker(name, document, table)
        if found is not None:
            found.rules = self
        return found

    def read_libvirt(self, host: LibvirtHost, table: FeatureTable) -> HostCapture:
        """A host as libvirt describes it, which is silent about KVM's own features."""
        found = read_libvirt(host, table)
        found.rules = self
        return found

    def check_raw(self, text: str) -> None:
        """Raise `DefinitionError` with each line that is not one of `cpuid -r`."""
        CpuidTable.from_raw(text)

    def default_features(self, table: FeatureTable) -> tuple[FeatureSet, FeatureSet]:
        """What KVM turns on and off on every model."""
        return table.set(DEFAULT_ON), table.set(DEFAULT_OFF)

    def aspect(self, feature: Feature) -> str:
        """`nested` for what VMX and SVM can do inside a guest, else `MSR` or `CPUID`."""
        word = word_of(feature)
        if _NESTED_WORDS.fullmatch(word):
            return "nested"
        return "MSR" if word.startswith("MSR.") else "CPUID"

    def guest_phys_bits(self, expansion: Expansion, host: HostCapture) -> int:
        """What CPUID leaf 0x80000008 tells the guest, or would."""
        return address_bits(expansion.identity, expansion.features, host.phys_bits)[0]

    def guest_tsc_khz(self, expansion: Expansion, host: HostCapture) -> int | None:
        """`tsc-frequency` if it is set, else the host's."""
        return expansion.identity.get("tsc-frequency", 0) // 1000 or host.tsc.khz

    def needed_capabilities(self, expansion: Expansion) -> Mapping[str, str]:
        """KVM's, for Hyper-V's enlightenments and for what holds guests to their CPUID."""
        return capabilities_of(expansion.identity)

    def layout_differences(
        self, features: FeatureSet, source: HostCapture, target: HostCapture
    ) -> Iterator[str]:
        """XSAVE components that lie elsewhere or have another size on `target`.

        KVM hands their state over as the host's own image (KVM_GET_XSAVE2, KVM_SET_XSAVE), so it
        must have the same layout on both (Intel SDM vol. 1, 13.4).
        """
        tables = [_xsave_table(capture) for capture in (source, target)]
        if None in tables:
            return
        for part in components(feature_words(features.table).encode(features)):
            here, there = (table.lookup(0xD, part.number)[:2] for table in tables if table)
            if part.offset is not None and any(there) and here != there:
                yield (
                    f"XSAVE component {part.number} ({part.name}) has {here[0]} bytes at "
                    f"{here[1]} on {source.name}, {there[0]} at {there[1]} on {target.name}"
                )

    def read_back(self, cpu: CPUState) -> tuple[Words, Words]:
        """All feature words asked for, and those in what KVM_GET_CPUID2 and KVM_GET_MSRS tell."""
        assert isinstance(cpu, X86CPU)
        assert cpu.expansion is not None
        accelerator: Any = cpu.machine.accelerator if cpu.machine is not None else None
        identity = identity_of(cpu.expansion, cpu.requested, cpu.topology, accelerator)
        asked = CpuidTemplate(identity, cpu.topology).for_apic_id(cpu.arch_id).words()
        words = feature_words(cpu.requested.table)
        if cpu.vcpu is not None:
            given = cpu.vcpu.granted_words()
        else:
            given = accelerator.granted_words(cpu.cpuid, {}) if accelerator is not None else asked
        return (
            asked | _in_msrs(words.encode(cpu.requested)),
            given | _in_msrs(words.encode(cpu.granted)),
        )


def _in_msrs(words: Words) -> dict[str, int]:
    return {word: value for word, value in words.items() if word.startswith("MSR.")}


def host_cpuid(device: Path = _CPUID_DEVICE) -> CpuidTable | None:
    """What CPUID answers on the host's CPU 0, None where the kernel's cpuid device cannot be read.

    (Linux arch/x86 cpuid driver: the file position is the function, and the index above bit 32.)
    """
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return CpuidTable(_leaves(fd))
    except (OSError, struct.error):
        return None
    finally:
        os.close(fd)


def _leaves(fd: int) -> Iterator[CpuidLeaf]:
    for base in (0, 0x80000000):
        limit = _leaf(fd, base, 0).eax
        for function in range(base, min(limit, base + 0xFF) + 1):
            yield from _subleaves(fd, function)


def _subleaves(fd: int, function: int) -> Iterator[CpuidLeaf]:
    first = _leaf(fd, function, 0)
    yield first
    if function not in INDEXED_FUNCTIONS:
        return
    last = first.eax if function in _COUNTED_SUBLEAVES else _MOST_SUBLEAVES - 1
    register, mask = _TYPED_SUBLEAVES.get(function, (0, 0))
    if mask and not first.registers[register] & mask:
        return
    for index in range(1, min(last, _MOST_SUBLEAVES - 1) + 1):
        leaf = _leaf(fd, function, index)
        if mask and not leaf.registers[register] & mask:
            return
        if any(leaf.registers):
            yield leaf


def _leaf(fd: int, function: int, index: int) -> CpuidLeaf:
    return CpuidLeaf(
        function, index, *struct.unpack("<4I", os.pread(fd, 16, index << 32 | function))
    )


def _cpuinfo_value(key: str, path: Path = _CPUINFO) -> str:
    """The value of the first CPU's line `key` in /proc/cpuinfo, empty if there is none."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    found = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in found if name.strip() == key), "")


def cpuinfo_features(table: FeatureTable, path: Path = _CPUINFO) -> FeatureSet:
    """What Linux found on the host's first CPU; it leaves out what it does not use."""
    flags = set(_cpuinfo_value("flags", path).split())
    return table.set(
        feature.name
        for feature in table
        if flags.intersection(feature.aliases.get("linux", (feature.name,)))
    )


def _tsc(accelerator: X86KvmAccelerator) -> Tsc:
    scaling = bool(accelerator.kvm.check_extension("KVM_CAP_TSC_CONTROL"))
    try:
        with accelerator.kvm.create_vm() as vm, vm.create_vcpu(0) as vcpu:
            return Tsc(vcpu.get_tsc_khz(), scaling)
    except KvmError:  # an unstable TSC has no frequency: EIO
        return Tsc(None, scaling)


def _xsave_table(capture: HostCapture) -> CpuidTable | None:
    """The CPUID table of a capture whose leaf 0xD has its subleaves."""
    for key in (CPUID, HOST_CPUID):
        if key in capture.raw:
            table = CpuidTable.from_raw(capture.raw[key])
            if (0xD, 2) in table:
                return table
    return None
