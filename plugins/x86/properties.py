"""The properties of an x86 CPU that are not features: QEMU's names, with their effect.

A property that only matters to something cpufw does not have is either accepted without effect,
because QEMU's machine types set it, or refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cpufw.core.qom import Property
from cpufw.errors import PropertyError

if TYPE_CHECKING:
    from cpufw.core.features import FeatureSet

AUTOMATIC = 2**32 - 1
"""What QEMU shows for a number that nobody set."""

LEVELS = ("level", "xlevel", "xlevel2", "level-func7")
"""The limits of CPUID's ranges: fixed where set, otherwise raised as the features need it."""


def _vendor_problem(vendor: str) -> str | None:
    from cpufw_x86.identity import VENDOR_LENGTH

    if len(vendor) == VENDOR_LENGTH:
        return None
    return f"a vendor has exactly {VENDOR_LENGTH} characters"


def _bits_problem(bits: int) -> str | None:
    # 52 is the architecture's limit: Intel SDM vol. 3A, 4.1.4.
    return None if bits == 0 or 32 <= bits <= 52 else "expected 32 to 52, or 0 for the default"


def _hypervisor_problem(vendor: str) -> str | None:
    fits = vendor.isascii() and len(vendor) <= 12
    return None if fits else "it has at most 12 characters of ASCII"


def _on_off_auto(value: str) -> str | None:
    return None if value in ("on", "off", "auto") else "expected on, off or auto"


def _lbr_problem(value: int) -> str | None:
    if value <= LBR_FORMATS or value == NO_LBR_FORMAT:
        return None
    return f"expected 0 to {LBR_FORMATS:#x}"


def _number(name: str, description: str, default: int = 0, high: int = AUTOMATIC) -> Property:
    return Property(name, "uint32", description, default, 0, high)


def _switch(name: str, description: str, default: bool = False) -> Property:
    return Property(name, "bool", description, default)


def _refused(name: str, sentence: str) -> Property:
    return Property(name, "bool", "not offered", False, check=lambda on: sentence if on else None)


_NO_EFFECT = "no effect here; QEMU's machine types set it"

_SWITCHES = {
    "hv-relaxed": "Hyper-V: no watchdogs",
    "hv-vapic": "Hyper-V: interrupts are ended through memory",
    "hv-time": "Hyper-V: a reference counter and the page that turns the TSC into it",
    "hv-crash": "Hyper-V: MSRs by which a guest tells that it crashed",
    "hv-reset": "Hyper-V: the MSR that resets the machine",
    "hv-vpindex": "Hyper-V: the MSR with the processor's number",
    "hv-runtime": "Hyper-V: the MSR with the time that the processor ran",
    "hv-synic": "Hyper-V: synthetic interrupts",
    "hv-stimer": "Hyper-V: synthetic timers",
    "hv-stimer-direct": "Hyper-V: synthetic timers interrupt without messages",
    "hv-frequencies": "Hyper-V: the MSRs with the frequencies of TSC and APIC",
    "hv-reenlightenment": "Hyper-V: the guest is told when the TSC's frequency changes",
    "hv-tlbflush": "Hyper-V: the hypercalls that flush TLBs of other processors",
    "hv-tlbflush-ext": "Hyper-V: those hypercalls take ranges of addresses",
    "hv-tlbflush-direct": "Hyper-V: those hypercalls work in nested guests",
    "hv-evmcs": "Hyper-V: enlightened VMCS, version 1",
    "hv-ipi": "Hyper-V: the hypercall that interrupts many processors",
    "hv-avic": "Hyper-V: the APIC's hardware help stays in use",
    "hv-apicv": "another name of hv-avic",
    "hv-xmm-input": "Hyper-V: hypercalls take parameters in XMM registers",
    "hv-emsr-bitmap": "Hyper-V: nested guests' MSR bitmaps are not read again in vain",
    "hv-enforce-cpuid": "the guest has only the enlightenments that its CPUID shows",
    "hv-passthrough": "all enlightenments that KVM has, as KVM has them",
}
LBR_FORMATS = 0x3F
NO_LBR_FORMAT = 2**64 - 1 - LBR_FORMATS
"""What QEMU shows for `lbr-fmt` when nobody set it."""


def _properties() -> Iterator[Property]:
    yield Property("vendor", "string", "CPUID leaf 0's vendor", "", check=_vendor_problem)
    yield Property("family", "int", "family as CPUID leaf 1 adds it up", 0, 0, 0xF + 0xFF)
    yield Property("model", "int", "model number within the family", 0, 0, 0xFF)
    yield Property("stepping", "int", "stepping of the model", 0, 0, 0xF)
    yield Property("model-id", "string", "the processor's brand string", "")
    yield _number("level", "the highest basic CPUID leaf, whatever the features need")
    yield _number("xlevel", "the highest extended CPUID leaf, whatever the features need")
    yield _number("xlevel2", "the highest Centaur CPUID leaf, whatever the features need")
    yield _number("level-func7", "the highest subleaf of leaf 7", AUTOMATIC)
    yield _number("min-level", "the highest basic CPUID leaf, unless the features need a higher")
    yield _number("min-xlevel", "the highest extended leaf, unless the features need a higher")
    yield _number("min-xlevel2", "the highest Centaur leaf, unless the features need a higher")
    yield _switch(
        "full-cpuid-auto-level", "every feature raises the levels, not leaf 7's only", True
    )
    yield _switch("x-intel-pt-auto-level", "intel-pt raises the level to leaf 0x14", True)
    bits = "physical address bits, 0 for the default"
    yield Property("phys-bits", "uint32", bits, 0, 0, 52, check=_bits_problem)
    bits = "address bits that nested paging maps, 0 for phys-bits"
    yield Property("guest-phys-bits", "uint32", bits, 0, 0, 52, check=_bits_problem)
    yield _switch("host-phys-bits", "as many physical address bits as the accelerator's host")
    yield Property("host-phys-bits-limit", "uint8", "at most so many of them, 0 for all", 0)
    yield _number("avx10-version", "version of AVX10", high=255)
    yield _switch("l3-cache", "show a level-3 cache", True)
    yield _switch("legacy-cache", "show QEMU's usual caches, not those of the model")
    yield _switch("cpuid-0xb", "show the extended topology in leaf 0xB", True)
    yield _switch("x-vendor-cpuid-only", "hide leaves that the vendor does not have", True)
    yield _switch("x-l1-cache-per-thread", "leaf 4: threads of a core share the L1 cache", True)
    yield _switch("x-amd-topoext-features-only", "leaf 0x8000001D hides complex indexing", True)
    yield _switch("legacy-multi-node", "leaf 0x8000001E counts dies as nodes")
    yield _switch("kvm", "let the guest see that it runs on KVM", True)
    yield _switch("pmu", "let the guest use performance counters (leaves 0xA and 0x80000022)")
    yield _switch("migratable", "host and max: leave out what ties the guest to its host", True)
    yield _switch("x-force-features", "show features even where the accelerator lacks them", False)
    for name, default in (
        ("tcg-cpuid", True), ("vmware-cpuid-freq", True), ("fill-mtrr-mask", True),
        ("x-migrate-smi-count", True), ("host-cache-info", False),
        ("start-powered-off", False),
    ):  # fmt: skip
        yield _switch(name, _NO_EFFECT, default)
    yield Property("tsc-frequency", "int", "the time-stamp counter's, in Hz", 0, 0, 2**63 - 1)
    yield from (_switch(name, description) for name, description in _SWITCHES.items())
    yield _number("hv-spinlocks", "Hyper-V: tries before a guest tells that it spins", AUTOMATIC)
    text = "Hyper-V: only sibling threads share a core: on, off, or auto for what KVM says"
    yield Property("hv-no-nonarch-coresharing", "string", text, "off", check=_on_off_auto)
    text = "Hyper-V: who says it is, at most 12 characters"
    yield Property("hv-vendor-id", "string", text, "", check=_hypervisor_problem)
    for part, usual, high in (
        ("major", 10, 0xFFFF),
        ("minor", 0, 0xFFFF),
        ("build", 14393, AUTOMATIC),
        ("spack", 0, AUTOMATIC),
        ("sbranch", 0, 0xFF),
        ("snumber", 0, 0xFFFFFF),
    ):
        yield _number(f"hv-version-id-{part}", "Hyper-V: its version", usual, high)
    text = "Hyper-V: the most processors it says it can have, -1 for no limit"
    yield Property("x-hv-max-vps", "int", text, -1, -1, 2**31 - 1)
    yield _switch("x-hv-synic-kvm-only", "Hyper-V: synthetic interrupts as before QEMU 2.12")
    yield _refused("hv-syndbg", "cpufw has no VMBus, which the debugger's device needs")
    yield _refused("xen-vapic", "it needs guests of Xen, which cpufw does not run")
    yield _switch("lmce", "machine checks can be one CPU's alone (IA32_MCG_CAP bit 27)")
    yield _switch("kvm-pv-enforce-cpuid", "the guest has only KVM's features that CPUID shows")
    text = "what IA32_BIOS_SIGN_ID holds, 0 for what KVM says"
    yield Property("ucode-rev", "uint64", text, 0)
    text = "format of last-branch records (IA32_PERF_CAPABILITIES), which must be the host's"
    yield Property("lbr-fmt", "uint64", text, NO_LBR_FORMAT, check=_lbr_problem)


PROPERTIES: Mapping[str, Property] = {spec.name: spec for spec in _properties()}
"""Every property by name."""


def default_phys_bits(features: FeatureSet) -> int:
    """Physical address bits of a model that does not say: QEMU's rule."""
    if "lm" in features:
        return 40
    return 36 if "pae" in features or "pse36" in features else 32


def address_bits(
    values: Mapping[str, Any], features: FeatureSet, host_bits: int | None
) -> tuple[int, int]:
    """Physical address bits and guest-physical ones (0: the same) of a CPU with these settings.

    `host_bits` are the host's, None without an accelerator. Raises `PropertyError` for bits that
    cannot be.
    """
    bits = values.get("phys-bits") or default_phys_bits(features)
    guest_bits = values.get("guest-phys-bits", 0)
    if values.get("host-phys-bits") and host_bits is not None and "lm" in features:
        bits = min(host_bits, values.get("host-phys-bits-limit") or host_bits)
    if guest_bits and not 32 <= guest_bits <= bits:
        raise PropertyError(
            f"guest-phys-bits={guest_bits} is out of range, expected 32 to {bits}, the phys-bits"
        )
    return bits, guest_bits
