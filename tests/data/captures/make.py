"""Make the captures beside it: `python tests/data/captures/make.py [FILE.yaml …]`.

Some are read from published CPUID dumps (`dumps/`), the others are what a host would show that
can run a model and nothing beyond it. The expectation is in the file's name.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from cpufw.core.capture import HostCapture, Tsc
from cpufw.fleet.capture import load_capture
from cpufw.fleet.capture_file import dump
from cpufw.framework import Framework
from cpufw_x86.capture import X86CaptureRules
from cpufw_x86.cpu import identity_of
from cpufw_x86.cpuid import REGISTER_NAMES, CpuidTable
from cpufw_x86.dumps import CPUID, without_apic_ids
from cpufw_x86.synthesis import synthesise
from cpufw_x86.words import feature_words

HERE = Path(__file__).parent
PUBLISHED = "published CPUID dump: github.com/InstLatx64/InstLatx64, "
KVM_ON = (
    "kvmclock", "kvm-nopiodelay", "kvm-asyncpf", "kvm-steal-time", "kvm-pv-eoi", "kvm-pv-unhalt",
    "kvm-pv-tlb-flush", "kvm-pv-ipi", "kvm-poll-control", "kvm-pv-sched-yield", "kvm-asyncpf-int",
    "kvmclock-stable-bit", "x2apic", "tsc-deadline", "hypervisor", "arat", "tsc-adjust",
)  # fmt: skip
CONTROL_MSRS = (0x48B, 0x48D, 0x48E, 0x48F, 0x490)


@dataclass
class Host:
    """A host that can run `model` and no more."""

    model: str
    phys_bits: int
    khz: int
    kernel: str
    scaling: bool = True
    microcode: str = ""
    withheld: list[str] = field(default_factory=list)


DUMPS = {
    "core-i7-4770_runs-Haswell-v2_not-Haswell-v1": (
        "core-i7-4770",
        "GenuineIntel00306C3_Haswell_CPUID.txt",
        Tsc(3392144, False),
    ),
    "core-i9-7900x_runs-Skylake-Client-v1_not-Skylake-Server-v1": (
        "core-i9-7900x",
        "GenuineIntel0050654_SkylakeX_CPUID.txt",
        Tsc(3312000, True),
    ),
    "epyc-7742_runs-EPYC-Rome-v4_not-EPYC-Milan-v1": (
        "epyc-7742",
        "AuthenticAMD0830F10_K17_Rome_CPUID.txt",
        Tsc(2245780, True),
    ),
}

DERIVED = {
    "sandy-bridge-ep_runs-SandyBridge-v2_not-IvyBridge-v1": Host(
        "SandyBridge-v2,+vmx", 46, 2593905, "4.18.0", scaling=False, microcode="0x71a"
    ),
    "haswell-ep_runs-Haswell-v4_not-Broadwell-v4": Host(
        "Haswell-v4,+vmx,+ssbd,+md-clear", 46, 2294686, "5.14.0", scaling=False, microcode="0x49"
    ),
    "broadwell-ep_runs-Broadwell-v4_not-Skylake-Client-v4": Host(
        "Broadwell-v4,+vmx,+ssbd,+md-clear", 46, 2194917, "5.14.0", False, "0xb000040", ["rtm"]
    ),
    "cascade-lake_runs-Cascadelake-Server-v5_not-Icelake-Server-v1": Host(
        "Cascadelake-Server-v5,+vmx", 46, 2693670, "6.1.0", microcode="0x5003604"
    ),
    "ice-lake-sp_runs-Icelake-Server-v6_not-SapphireRapids-v1": Host(
        "Icelake-Server-v6,+vmx", 46, 2893201, "6.1.0", microcode="0xd0003d1"
    ),
    "sapphire-rapids_runs-SapphireRapids-v3_not-GraniteRapids-v1": Host(
        "SapphireRapids-v3,+vmx", 46, 2000000, "6.6.0", microcode="0x2b000590"
    ),
    "epyc-milan_runs-EPYC-Milan-v2_not-EPYC-Genoa-v1": Host(
        "EPYC-Milan-v2,+svm,+npt,+nrip-save,+vgif", 48, 2445406, "6.1.0", microcode="0xa0011d1"
    ),
    "epyc-genoa_runs-EPYC-Genoa-v1_not-SapphireRapids-v1": Host(
        "EPYC-Genoa-v1,+svm,+npt,+nrip-save,+vgif", 52, 2400000, "6.6.0", microcode="0xa101144"
    ),
}


def published(framework: Framework, name: str) -> HostCapture:
    """The host of a dump."""
    file, origin, tsc = DUMPS[name]
    capture = load_capture(HERE / "dumps" / f"{file}.cpuid", framework)
    capture.source = f"{PUBLISHED}{origin}; the TSC frequency is the nominal one"
    capture.tsc = tsc
    return capture


def derived(framework: Framework, name: str) -> HostCapture:
    """The host that has what the model has, and what KVM adds."""
    host = DERIVED[name]
    cpu = framework.cpu(host.model + "".join(f",+{feature}" for feature in KVM_ON))
    expansion = cpu.expand()
    table = expansion.features.table
    features = expansion.features - table.set(host.withheld)
    identity = identity_of(expansion, features, cpu.topology)
    shown = synthesise(identity, cpu.topology, cpu.topology.slot(0))
    msrs = {
        index: value << 32 if index in CONTROL_MSRS else value
        for word, value in feature_words(table).encode(features).items()
        if word.startswith("MSR.")
        for index in [int(word.removeprefix("MSR."), 16)]
    }
    return HostCapture(
        name=name,
        arch="x86_64",
        source=f"derived from the model {host.model}; no such host was read",
        features=tuple(features),
        identity={
            "vendor": identity.vendor,
            "family": identity.family,
            "model": identity.model,
            "stepping": identity.stepping,
            "level": identity.level,
            "xlevel": identity.xlevel,
            "model-id": identity.model_id,
            "phys-bits": host.phys_bits,
        },
        rules=X86CaptureRules(),
        accelerator="kvm",
        withheld=tuple(host.withheld),
        tsc=Tsc(host.khz, host.scaling),
        msrs=msrs,
        raw={CPUID: without_apic_ids(shown).to_raw()},
        system={"kernel": host.kernel, "microcode": host.microcode},
    )


def fingerprint(name: str) -> str:
    """What Firecracker would dump of such a CPU: every register of every leaf, bit by bit."""
    cpuid = CpuidTable.from_raw((HERE / "dumps" / f"{name}.cpuid").read_text())
    config = {
        "kvm_capabilities": [],
        "cpuid_modifiers": [
            {
                "leaf": f"{leaf.function:#x}",
                "subleaf": f"{leaf.index:#x}",
                "flags": int(leaf.indexed),
                "modifiers": [
                    {"register": register.lower(), "bitmap": f"0b{value:032b}"}
                    for register, value in zip(REGISTER_NAMES, leaf.registers, strict=True)
                ],
            }
            for leaf in cpuid.values()
            if any(leaf.registers)
        ],
        "msr_modifiers": [{"addr": "0x10a", "bitmap": f"0b{0:064b}"}],
    }
    whole = {
        "firecracker_version": "1.7.0",
        "kernel_version": "6.1.90",
        "microcode_version": "0x830107c",
        "bios_version": "1.0",
        "bios_revision": "1.0",
        "guest_cpu_config": config,
    }
    return json.dumps(whole, indent=1) + "\n"


def main(names: list[str]) -> None:
    framework = Framework(user=False)
    table = framework.catalogue("x86_64").table
    for name in names or [*DUMPS, *DERIVED]:
        name = name.removesuffix(".yaml")
        capture = (published if name in DUMPS else derived)(framework, name)
        (HERE / f"{name}.yaml").write_text(dump(capture, table), encoding="utf-8")
    (HERE / "dumps" / "epyc-7742.fingerprint.json").write_text(fingerprint("epyc-7742"))


if __name__ == "__main__":
    main(sys.argv[1:])
