"""Whether a guest can go from one captured host to another, and if not, exactly why."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpufw.core.capture import HostCapture
from cpufw.core.features import FeatureSet
from cpufw.errors import ModelError
from cpufw.fleet.on_host import expand_on

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUState
    from cpufw.core.model import Expansion
    from cpufw.framework import Framework

TSC_TOLERANCE_PPM = 250
"""Two TSCs that differ by less count as the same: KVM and Linux's clock correction bear it."""


class Verdict(enum.Enum):
    """An answer. `unknown` is one that the captures do not give."""

    YES = "yes"
    UNKNOWN = "unknown"
    NO = "no"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at and is worth a line.

    `aspect` is what it belongs to (`CPUID`, `MSR`, `nested`, `TSC`, …), `subject` the feature or
    value, `place` where a guest finds it. A finding that says yes is a remark.
    """

    aspect: str
    subject: str
    verdict: Verdict
    reason: str
    place: str = ""


@dataclass(frozen=True)
class MigrationCheck:
    """A guest with `cpu` that runs on `source`, and what keeps it from `target`."""

    cpu: str
    source: str
    target: str
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """No if anything says no, else unknown if anything is unknown."""
        said = {finding.verdict for finding in self.findings}
        return next((each for each in (Verdict.NO, Verdict.UNKNOWN) if each in said), Verdict.YES)


def check_migrations(
    framework: Framework, cpus: Sequence[str], source: HostCapture, targets: Sequence[HostCapture]
) -> list[MigrationCheck]:
    """Every one of `cpus` (each a `--cpu` string) to every one of `targets`.

    Raises what naming a CPU raises, and `ModelError` for a host of another architecture.
    """
    checks = []
    for text in cpus:
        cpu = framework.cpu(text, source.arch)
        expansion = expand_on(cpu, source)
        for target in targets:
            if target.arch != source.arch:
                raise ModelError(
                    f"{target.name} is a host of architecture {target.arch}, {source.name} is of "
                    f"{source.arch}"
                )
            findings = tuple(_findings(cpu, expansion, source, target))
            checks.append(MigrationCheck(text, source.name, target.name, findings))
    return checks


def _findings(
    cpu: CPUState, expansion: Expansion, source: HostCapture, target: HostCapture
) -> Iterator[Finding]:
    table = expansion.features.table
    possible = source.supported_features(table) | source.unknown_features(table)
    never_had = expansion.features - possible
    guest = expansion.features & possible
    yield from _source_features(never_had, source)
    yield from _features(guest, source, target)
    khz = source.tsc.khz
    if source.rules is not None:
        yield from _settings(source.rules.needed_capabilities(expansion), target)
        for difference in source.rules.layout_differences(guest, source, target):
            yield Finding("XSAVE", "layout", Verdict.NO, difference)
        yield from _phys_bits(source.rules.guest_phys_bits(expansion, source), source, target)
        khz = source.rules.guest_tsc_khz(expansion, source)
    yield from _tsc(khz, source, target)
    yield from _vendor(cpu, source, target)


def _source_features(never_had: FeatureSet, source: HostCapture) -> Iterator[Finding]:
    if never_had:
        reason = f"the guest is without it on {source.name} already"
        for name in never_had:
            yield _feature_finding(never_had, name, source, Verdict.YES, reason)


def _features(guest: FeatureSet, source: HostCapture, target: HostCapture) -> Iterator[Finding]:
    table = guest.table
    for name in guest & table.unmigratable:
        reason = "a guest that has it is tied to its host"
        yield _feature_finding(guest, name, source, Verdict.NO, reason)
    missing = guest - target.supported_features(table)
    silent = target.unknown_features(table)
    for name in missing:
        if name in silent:
            reason = f"the capture of {target.name} does not tell"
            yield _feature_finding(guest, name, source, Verdict.UNKNOWN, reason)
        elif name in target.withheld:
            accelerator = target.accelerator or "its accelerator"
            reason = f"the CPU of {target.name} has it, {accelerator} there does not give it"
            yield _feature_finding(guest, name, source, Verdict.NO, reason)
        else:
            yield _feature_finding(
                guest, name, source, Verdict.NO, f"{target.name} does not have it"
            )


def _feature_finding(
    features: FeatureSet, name: str, host: HostCapture, verdict: Verdict, reason: str
) -> Finding:
    feature = features.table[name]
    aspect = host.rules.aspect(feature) if host.rules is not None else "feature"
    return Finding(aspect, name, verdict, reason, " ".join(feature.places))


def _settings(needed: Mapping[str, str], target: HostCapture) -> Iterator[Finding]:
    has = target.capabilities()
    for setting, capability in needed.items():
        if not has:
            reason = f"the capture of {target.name} does not tell whether it has {capability}"
            yield Finding("setting", setting, Verdict.UNKNOWN, reason)
        elif not has.get(capability):
            reason = f"{target.name} has no {capability}"
            yield Finding("setting", setting, Verdict.NO, reason)


def _phys_bits(bits: int, source: HostCapture, target: HostCapture) -> Iterator[Finding]:
    aspect, subject = "memory", "phys-bits"
    if target.phys_bits is None:
        reason = f"the capture of {target.name} does not tell how many it has; the guest has {bits}"
        yield Finding(aspect, subject, Verdict.UNKNOWN, reason)
    elif bits > target.phys_bits:
        reason = f"the guest has {bits} physical address bits, {target.name} {target.phys_bits}"
        if source.phys_bits is not None and source.phys_bits <= target.phys_bits:
            reason += f", and {source.name} no more"
            yield Finding(aspect, subject, Verdict.YES, reason)
        else:
            reason += f"; phys-bits={target.phys_bits} from the start lets it go"
            yield Finding(aspect, subject, Verdict.NO, reason)


def _tsc(here: int | None, source: HostCapture, target: HostCapture) -> Iterator[Finding]:
    aspect, subject = "TSC", "tsc-frequency"
    there = target.tsc.khz
    if target.tsc.scaling:
        if here != there:
            reason = f"{target.name} scales its TSC to the guest's"
            yield Finding(aspect, subject, Verdict.YES, reason)
        return
    if here is None or there is None:
        silent = [host.name for host, khz in ((source, here), (target, there)) if khz is None]
        reason = f"it is not in the capture of {' and '.join(silent)}"
        yield Finding(aspect, subject, Verdict.UNKNOWN, reason)
        return
    ppm = abs(there - here) * 1_000_000 / here
    if ppm <= TSC_TOLERANCE_PPM:
        return
    reason = (
        f"{there} kHz on {target.name} is {ppm:.0f} ppm from the guest's {here} kHz, "
        f"more than {TSC_TOLERANCE_PPM}"
    )
    if target.tsc.scaling is None:
        reason += f", and the capture does not tell whether {target.name} can scale its TSC"
        yield Finding(aspect, subject, Verdict.UNKNOWN, reason)
    else:
        reason += f", and {target.name} cannot scale its TSC"
        yield Finding(aspect, subject, Verdict.NO, reason)


def _vendor(cpu: CPUState, source: HostCapture, target: HostCapture) -> Iterator[Finding]:
    here, there = (host.identity.get("vendor") for host in (source, target))
    if here and there and here != there:
        reason = f"{source.name} is {here}, {target.name} {there}; {cpu.model.name} stays as it is"
        yield Finding("identity", "vendor", Verdict.YES, reason)
