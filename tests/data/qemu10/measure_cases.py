"""What measure_cpuid.py asks."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

LEVELS = ("socket", "die", "module", "core", "thread")
MODELS = Path(__file__).with_name("x86-models.json.xz")
MACHINES = Path(__file__).with_name("x86-machines.json.xz")


@dataclass(frozen=True)
class Case:
    """One question: machine type, `-cpu` string, topology, and the slots asked."""

    machine: str
    cpu: str
    smp: str = "sockets=1"
    slots: tuple[int, ...] = (0,)

    @property
    def cpus(self) -> int:
        """How many CPUs are there."""
        return len(self.slots)

    @property
    def counts(self) -> dict[str, int]:
        """How many of each level, as in `smp`."""
        pairs = (part.split("=") for part in self.smp.split(","))
        return {level: int(count) for level, count in pairs}

    @property
    def head(self) -> str:
        """Its first line in the file."""
        return f"[{self.machine} | {self.cpu} | {self.smp} | {self.slots}]"


def slots_of(smp: str, some: bool = True) -> tuple[int, ...]:
    """The first, the last and two slots between, or all."""
    total = prod(int(part.split("=")[1]) for part in smp.split(","))
    if not some or total <= 4:
        return tuple(range(total))
    return tuple(sorted({0, total // 3, total * 2 // 3, total - 1}))


def names() -> list[str]:
    """Every model that says the same on every host."""
    models = json.loads(lzma.decompress(MODELS.read_bytes()))["models"]
    return [name for name in models if name not in ("host", "max")]


def sections() -> dict[str, list[Case]]:
    """Every question, by the part of the file."""
    return {
        "models": list(_models()),
        "topologies": list(_topologies()),
        "machines": list(_machines()),
        "settings": list(_settings()),
    }


def several(cpu: str) -> str:
    """The `-cpu` string for a machine of several CPUs: the guest wakes them through x2APIC."""
    oldest = cpu.split(",")[0] in ("486", "486-v1", "base")
    return f"{cpu},{'+msr,+apic,' if oldest else ''}+x2apic"


def _models() -> Iterator[Case]:
    """Every model: alone, in two topologies, and where names and properties mean something else."""
    for name in names():
        yield Case("q35", name)
        for smp in (
            "sockets=2,dies=2,cores=3,threads=2",
            "sockets=2,dies=1,modules=3,cores=2,threads=1",
        ):
            yield Case("q35", several(name), smp, slots_of(smp))
        for machine in ("microvm", "pc-q35-2.4", "pc-q35-2.7"):
            yield Case(machine, name)


TOPOLOGIES = (
    "sockets=4",
    "sockets=1,cores=4",
    "sockets=1,cores=1,threads=4",
    "sockets=3,cores=5,threads=2",
    "sockets=1,dies=3,cores=1",
    "sockets=2,dies=2,modules=2,cores=3,threads=2",
    "sockets=1,dies=1,modules=4,cores=4,threads=2",
    "sockets=8,dies=2,cores=8,threads=1",
    "sockets=1,dies=4,cores=16,threads=2",
    "sockets=2,cores=32,threads=2",
    "sockets=2,cores=64,threads=2",
    "sockets=1,cores=128,threads=2",
    "sockets=1,cores=129,threads=2",
    "sockets=1,cores=300,threads=1",
    "sockets=2,dies=1,modules=3,cores=43,threads=2",
    "sockets=64,cores=16,threads=4",
)
KINDS = (
    "Haswell", "SapphireRapids", "Nehalem", "EPYC-Genoa", "EPYC-v4", "EPYC-Rome", "Dhyana",
    "YongFeng", "qemu64", "kvm64", "Opteron_G5", "athlon", "core2duo", "phenom", "base,level=0x20",
    "qemu64,xlevel=0x8000001e", "Denverton", "Cooperlake", "Snowridge",
)  # fmt: skip


def _topologies() -> Iterator[Case]:
    """One model of each kind in many topologies."""
    for smp in TOPOLOGIES:
        for cpu in KINDS:
            yield Case("q35", several(cpu), smp, slots_of(smp))


OTHERS = (
    "base", "Haswell-v1", "Haswell-v4", "EPYC-v1", "EPYC-v2", "EPYC-Genoa", "EPYC-Milan", "Dhyana",
    "phenom", "SapphireRapids", "GraniteRapids", "YongFeng", "486", "pentium3", "kvm64",
    "Snowridge", "KnightsMill", "Skylake-Server-v2", "Penryn", "Westmere-IBRS",
    "Icelake-Server,+intel-pt", "Haswell,+svm", "EPYC,+topoext", "EPYC,legacy-cache=off",
    "Conroe,+xsave,+avx,+avx2", "qemu64,+arat", "n270,+invtsc", "Haswell,min-level=0x1f",
    "Opteron_G3,+rdtscp", "qemu64,stepping=5",
)  # fmt: skip


def _machines() -> Iterator[Case]:
    """Every machine type, with each model that any of them changes and some others."""
    reference = json.loads(lzma.decompress(MACHINES.read_bytes()))["machines"]
    touched = {
        each["qom-type"].removesuffix("-x86_64-cpu")
        for record in reference.values()
        for each in record["cpu-compat-props"]
    }
    changed = sorted(touched & set(names()))
    for machine in reference:
        if machine in ("none", "x-remote"):  # they run nothing
            continue
        for cpu in (*changed, *OTHERS):
            yield Case(machine, cpu)
        if machine in ("isapc", "microvm"):  # they have one CPU, or no CPU hot-plug
            continue
        for cpu in (
            "Haswell",
            "EPYC",
            "EPYC-Genoa",
            "EPYC-v1",
            "qemu64",
            "SapphireRapids",
            "Dhyana",
        ):
            for smp in ("sockets=2,cores=3,threads=2", "sockets=2,dies=2,cores=2,threads=2"):
                yield Case(machine, several(cpu), smp, slots_of(smp))


SETTINGS = (
    "level=4", "level=0x20", "min-level=4", "min-level=0x1f", "min-level=0x20,level=7",
    "xlevel=0x80000004", "xlevel=0x80000022", "min-xlevel=0x8000001e", "min-xlevel=0x80000001",
    "xlevel2=0xc0000001", "min-xlevel2=0xc0000004", "full-cpuid-auto-level=off", "level-func7=0",
    "level-func7=2", "avx10-version=2", "l3-cache=off", "legacy-cache=on", "host-phys-bits=off",
    "host-phys-bits-limit=39", "vendor=GenuineIntel", "vendor=AuthenticAMD",
    "vendor=HygonGenuine", "vendor=CentaurHauls", "vendor=  Shanghai  ",
    "vendor=AuthenticAMD,x-vendor-cpuid-only=off", "x-vendor-cpuid-only=off", "cpuid-0xb=off",
    "hypervisor=off", "tcg-cpuid=off", "pmu=on", "tsc-frequency=2500000000",
    "vmware-cpuid-freq=off", "family=6,model=143,stepping=8", "family=31,model=255,stepping=15",
    "model-id=My Processor", "x-l1-cache-per-thread=off", "legacy-multi-node=on",
    "x-amd-topoext-features-only=off", "-topoext", "+topoext", "fill-mtrr-mask=off", "-monitor",
    "+ht", "+cmp-legacy", "-x2apic", "+pmm", "x-migrate-smi-count=off", "hv-version-id-build=1",
    "start-powered-off=off",
)  # fmt: skip
SUBJECTS = (
    "Haswell", "SapphireRapids", "EPYC", "EPYC-Genoa", "qemu64", "Dhyana", "YongFeng", "pentium",
    "base", "Nehalem-v2",
)  # fmt: skip
FEATURES = (
    "+invtsc", "+svm", "+svm,+npt,+vgif", "+vmx", "+monitor", "+pku", "+mpx", "+la57", "+avx-vnni",
    "+spec-ctrl,+ssbd", "+arat,+sha-ni", "full-cpuid-auto-level=off,+arat,+sha-ni,+invtsc",
    "+tsc-adjust,+bus-lock-detect", "+prefetchiti", "+null-sel-clr-base",
    "+mcdt-no", "+xsaves", "+wbnoinvd", "+overflow-recov",
    "phys-bits=46", "phys-bits=52", "phys-bits=48,guest-phys-bits=40", "guest-phys-bits=36",
)  # fmt: skip
SHAPED = (
    "l3-cache=off", "legacy-cache=on", "cpuid-0xb=off", "legacy-multi-node=on",
    "x-l1-cache-per-thread=off", "vendor=GenuineIntel", "vendor=AuthenticAMD",
    "vendor=HygonGenuine", "vendor=  Shanghai  ", "vendor=CentaurHauls", "x-vendor-cpuid-only=off",
    "x-amd-topoext-features-only=off", "-topoext", "min-level=0x1f", "-ht", "-cmp-legacy",
    "full-cpuid-auto-level=off",
)  # fmt: skip


def _settings() -> Iterator[Case]:
    """Every setting on models of each kind, alone and where topology or caches show."""
    for setting in SETTINGS:
        for cpu in SUBJECTS:
            yield Case("q35", f"{cpu},{setting}")
    for setting in FEATURES:
        for cpu in ("Haswell", "SapphireRapids", "EPYC-Genoa", "Dhyana", "YongFeng"):
            yield Case("q35", f"{cpu},{setting}")
    for cpu in ("EPYC", "EPYC-Genoa", "EPYC-Rome-v4"):
        yield Case("q35", f"{cpu},legacy-cache=off")
    smp = "sockets=2,dies=2,cores=3,threads=2"
    for setting in SHAPED:
        for cpu in ("Haswell", "SapphireRapids", "EPYC", "EPYC-Genoa", "YongFeng", "Dhyana"):
            yield Case("q35", f"{cpu},+x2apic,{setting}", smp, (0, 13))
