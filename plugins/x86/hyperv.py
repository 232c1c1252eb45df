"""Hyper-V's interface to its guests, as KVM offers it: enlightenments, CPUID leaves, MSRs.

Leaves and bits: Microsoft's Hypervisor Top Level Functional Specification (TLFS), 2.4; what KVM
has of them: Linux, Documentation/virt/kvm/api.rst, 4.118.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cpufw.errors import ModelError
from cpufw_x86.cpuid import (
    HYPERV_INTERFACE,
    HYPERVISOR_BASE,
    CpuidLeaf,
    CpuidTable,
    Registers,
    word_place,
)
from cpufw_x86.properties import AUTOMATIC, PROPERTIES

if TYPE_CHECKING:
    from cpufw_x86.accelerator import X86KvmAccelerator
    from cpufw_x86.kvm import X86VCPU


class Enlightenment(NamedTuple):
    """What a guest is offered: the bits of CPUID that say so, by word, and what else it takes.

    `capability` is what KVM has where it has this, as far as that says more than KVM_CAP_HYPERV.
    """

    words: Mapping[str, int]
    requires: tuple[str, ...] = ()
    capability: str = ""


_PRIVILEGES, _FEATURES, _HINTS, _NESTED = (
    "40000003.EAX", "40000003.EDX", "40000004.EAX", "4000000A.EAX",
)  # fmt: skip
_SETS_OF_VPS = 1 << 11

ENLIGHTENMENTS: Mapping[str, Enlightenment] = {
    "hv-relaxed": Enlightenment({_HINTS: 1 << 5}),
    "hv-vapic": Enlightenment({_PRIVILEGES: 1 << 4}, capability="KVM_CAP_HYPERV_VAPIC"),
    "hv-time": Enlightenment({_PRIVILEGES: 1 << 1 | 1 << 9}, capability="KVM_CAP_HYPERV_TIME"),
    "hv-crash": Enlightenment({_FEATURES: 1 << 10}),
    "hv-reset": Enlightenment({_PRIVILEGES: 1 << 7}),
    "hv-vpindex": Enlightenment({_PRIVILEGES: 1 << 6}, capability="KVM_CAP_HYPERV_VP_INDEX"),
    "hv-runtime": Enlightenment({_PRIVILEGES: 1 << 0}),
    "hv-synic": Enlightenment({_PRIVILEGES: 1 << 2}, capability="KVM_CAP_HYPERV_SYNIC2"),
    "hv-stimer": Enlightenment({_PRIVILEGES: 1 << 3}, ("hv-synic", "hv-time")),
    "hv-stimer-direct": Enlightenment({_FEATURES: 1 << 19}, ("hv-stimer",)),
    "hv-frequencies": Enlightenment({_PRIVILEGES: 1 << 11, _FEATURES: 1 << 8}),
    "hv-reenlightenment": Enlightenment({_PRIVILEGES: 1 << 13}),
    "hv-tlbflush": Enlightenment(
        {_HINTS: 1 << 2 | _SETS_OF_VPS}, ("hv-vpindex",), "KVM_CAP_HYPERV_TLBFLUSH"
    ),
    "hv-tlbflush-ext": Enlightenment({_FEATURES: 1 << 14}, ("hv-tlbflush",)),
    "hv-tlbflush-direct": Enlightenment({_NESTED: 1 << 17}, ("hv-vapic",)),
    "hv-evmcs": Enlightenment({_HINTS: 1 << 14}, ("hv-vapic",), "KVM_CAP_HYPERV_ENLIGHTENED_VMCS"),
    "hv-ipi": Enlightenment(
        {_HINTS: 1 << 10 | _SETS_OF_VPS}, ("hv-vpindex",), "KVM_CAP_HYPERV_SEND_IPI"
    ),
    "hv-avic": Enlightenment({_HINTS: 1 << 9}),
    "hv-xmm-input": Enlightenment({_FEATURES: 1 << 4}),
    "hv-emsr-bitmap": Enlightenment({_NESTED: 1 << 19}),
}
"""By the name of the property that asks for it (QEMU's)."""

ALIASES = {"hv-apicv": "hv-avic"}

_HYPERCALLS = 1 << 5  # 40000003.EAX
_POST_MESSAGES, _SIGNAL_EVENTS = 1 << 4, 1 << 5  # 40000003.EBX
_PROCESSORS_COME_AND_GO = 1 << 3  # 40000003.EDX: Windows brings a hot-plugged CPU online
_APIC_MSRS = 1 << 3  # 40000004.EAX: better than the APIC's own registers
_NO_FOREIGN_SIBLINGS = 1 << 18  # 40000004.EAX: only sibling threads share a core
_EVMCS_VERSION = 1  # 4000000A.EAX bits 7:0 and 15:8, the lowest and the highest

_LAST_LEAF, _LAST_NESTED_LEAF = HYPERVISOR_BASE + 5, HYPERVISOR_BASE + 0xA
_MOST_LOGICAL_PROCESSORS = 64

# MSRs at reset (TLFS 2.2, 11, 12). Those of a virtual processor:
_MASKED = 1 << 16
PROCESSOR_MSRS = {
    **dict.fromkeys((0x40000073, 0x40000080, 0x40000082, 0x40000083), 0),
    **dict.fromkeys(range(0x40000090, 0x400000A0), _MASKED),  # HV_X64_MSR_SINT0-15
    **dict.fromkeys(range(0x400000B0, 0x400000B8), 0),  # HV_X64_MSR_STIMER0-3
}
# and those of the partition: the guest's identity, its hypercall and TSC pages, its crash.
PARTITION_MSRS = dict.fromkeys(
    (
        0x40000000,
        0x40000001,
        0x40000021,
        *range(0x40000100, 0x40000105),
        *range(0x40000106, 0x40000109),
    ),
    0,
)
_VP_INDEX, _SCONTROL = 0x40000002, 0x40000080


@dataclass(frozen=True, slots=True)
class HyperV:
    """The Hyper-V that a guest sees; `enabled` are names of `ENLIGHTENMENTS`.

    `version` and `limits` are the registers of leaves 0x40000002 and 0x40000005.
    """

    enabled: frozenset[str]
    vendor: bytes
    version: Registers
    spinlocks: int
    limits: Registers
    no_foreign_siblings: bool = False
    messages: bool = True
    """Whether messages go through user space (KVM_CAP_HYPERV_SYNIC2), as VMBus needs it."""
    enforced: bool = False
    """Whether the guest gets only what its CPUID shows."""

    def leaves(self) -> Iterator[CpuidLeaf]:
        """CPUID leaves 0x40000000 to 0x4000000A (TLFS 2.4)."""
        nested = self._word(_NESTED)
        if "hv-evmcs" in self.enabled:
            nested |= _EVMCS_VERSION | _EVMCS_VERSION << 8
        last = _LAST_NESTED_LEAF if nested else _LAST_LEAF
        yield CpuidLeaf(HYPERVISOR_BASE, 0, last, *struct.unpack("<3I", self.vendor))
        yield CpuidLeaf(HYPERVISOR_BASE + 1, 0, HYPERV_INTERFACE, 0, 0, 0)
        yield CpuidLeaf(HYPERVISOR_BASE + 2, 0, *self.version)
        synic = "hv-synic" in self.enabled and self.messages
        yield CpuidLeaf(
            HYPERVISOR_BASE + 3,
            0,
            self._word(_PRIVILEGES) | _HYPERCALLS,
            _POST_MESSAGES | _SIGNAL_EVENTS if synic else 0,
            0,
            self._word(_FEATURES) | _PROCESSORS_COME_AND_GO,
        )
        hints = self._word(_HINTS)
        if "hv-vapic" in self.enabled and "hv-avic" not in self.enabled:
            hints |= _APIC_MSRS
        if self.no_foreign_siblings:
            hints |= _NO_FOREIGN_SIBLINGS
        yield CpuidLeaf(HYPERVISOR_BASE + 4, 0, hints, self.spinlocks, 0, 0)
        yield CpuidLeaf(HYPERVISOR_BASE + 5, 0, *self.limits)
        if nested:
            yield CpuidLeaf(_LAST_NESTED_LEAF, 0, nested, 0, 0, 0)

    def _word(self, name: str) -> int:
        word = 0
        for enabled in self.enabled:
            word |= ENLIGHTENMENTS[enabled].words.get(name, 0)
        return word

    def enable(self, vcpu: X86VCPU, index: int) -> None:
        """Turn it on in a vCPU that has not run, as virtual processor `index`."""
        if "hv-synic" in self.enabled:
            vcpu.enable_cap("KVM_CAP_HYPERV_SYNIC2" if self.messages else "KVM_CAP_HYPERV_SYNIC")
            vcpu.set_msrs({_SCONTROL: 0})  # KVM turns it on at once
        if "hv-evmcs" in self.enabled:
            vcpu.enable_evmcs()
        if self.enforced:
            vcpu.enable_cap("KVM_CAP_HYPERV_ENFORCE_CPUID", 1)
        if "hv-vpindex" in self.enabled:
            vcpu.set_msrs({_VP_INDEX: index})


def hyperv_of(
    values: Mapping[str, Any], accelerator: X86KvmAccelerator | None = None
) -> HyperV | None:
    """The Hyper-V that a CPU with these settings shows, None where none of them asks for it.

    Raises `ModelError` for what the accelerator lacks, by name, and for an enlightenment without
    those that it needs. Without an accelerator nothing is lacking.
    """
    passthrough = values.get("hv-passthrough", False)
    spinlocks = _setting(values, "hv-spinlocks")  # by default a guest never tells that it spins
    enabled = {name for name in ENLIGHTENMENTS if values.get(name)}
    enabled |= {name for alias, name in ALIASES.items() if values.get(alias)}
    if not (passthrough or enabled or spinlocks != AUTOMATIC):
        return None
    asked = sorted(enabled) or ["hv-passthrough" if passthrough else "hv-spinlocks"]
    offered = accelerator.hyperv if accelerator is not None else None
    if accelerator is not None and offered is None:
        raise ModelError(
            f"{', '.join(asked)}: this host's KVM has no Hyper-V enlightenments "
            "(KVM_CAP_HYPERV and KVM_CAP_HYPERV_CPUID; CONFIG_KVM_HYPERV builds them)"
        )
    enforced = bool(values.get("hv-enforce-cpuid"))
    if enforced and accelerator is not None:
        accelerator.require("hv-enforce-cpuid", "KVM_CAP_HYPERV_ENFORCE_CPUID")
    messages = not values.get("x-hv-synic-kvm-only", False)
    alone = values.get("hv-no-nonarch-coresharing", "off")
    if alone == "auto":
        known = offered is not None and _word(offered, _HINTS) & _NO_FOREIGN_SIBLINGS
        alone = "on" if known else "off"
    if passthrough:
        if offered is None:
            raise ModelError("hv-passthrough needs the accelerator kvm, whose enlightenments it is")
        return _all_of(offered, alone == "on", messages, enforced)
    lacking = {name for name in enabled if offered is not None and not _offers(offered, name)}
    if lacking:
        raise ModelError(f"this host's KVM does not offer {', '.join(map(_told, sorted(lacking)))}")
    for name in sorted(enabled):
        required = ENLIGHTENMENTS[name].requires
        if name == "hv-synic" and messages:
            required += ("hv-vpindex",)
        missing = [other for other in required if other not in enabled]
        if missing:
            raise ModelError(
                f"{name} requires {' and '.join(missing)}: set {'=on,'.join(missing)}=on"
            )
    return HyperV(
        frozenset(enabled),
        (values.get("hv-vendor-id") or "Microsoft Hv").encode("ascii").ljust(12, b"\0"),
        _version(values),
        spinlocks,
        (_setting(values, "x-hv-max-vps") & 0xFFFFFFFF, _MOST_LOGICAL_PROCESSORS, 0, 0),
        alone == "on",
        messages,
        enforced,
    )


def _all_of(offered: CpuidTable, alone: bool, messages: bool, enforced: bool) -> HyperV:
    """Everything that KVM offers, with the identity that KVM has itself."""
    return HyperV(
        frozenset(name for name in ENLIGHTENMENTS if _offers(offered, name)),
        struct.pack("<3I", *offered[HYPERVISOR_BASE, 0].registers[1:]),
        offered[HYPERVISOR_BASE + 2, 0].registers,
        offered[HYPERVISOR_BASE + 4, 0].ebx,
        offered[HYPERVISOR_BASE + 5, 0].registers,
        alone,
        messages,
        enforced,
    )


def _version(values: Mapping[str, Any]) -> Registers:
    def part(name: str) -> int:
        return int(_setting(values, f"hv-version-id-{name}"))

    return (
        part("build"),
        part("major") << 16 | part("minor"),
        part("spack"),
        part("sbranch") << 24 | part("snumber"),
    )


def _setting(values: Mapping[str, Any], name: str) -> Any:
    return values.get(name, PROPERTIES[name].default)


def _offers(offered: CpuidTable, name: str) -> bool:
    words = ENLIGHTENMENTS[name].words
    return all(_word(offered, word) & bits == bits for word, bits in words.items())


def _word(table: CpuidTable, name: str) -> int:
    function, index, register = word_place(name)
    leaf = table.get((function, index))
    return leaf.registers[register] if leaf is not None else 0


def _told(name: str) -> str:
    words, _, capability = ENLIGHTENMENTS[name]
    bits = [f"{word}:{bit}" for word, mask in words.items() for bit in range(32) if mask >> bit & 1]
    return f"{name} ({', '.join([*filter(None, [capability]), *bits])})"
