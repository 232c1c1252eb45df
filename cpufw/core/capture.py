"""A captured host: what its accelerator can give guests, as data that travels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cpufw.core.accel import Accelerator
    from cpufw.core.cpu import CPUState
    from cpufw.core.features import Feature, FeatureSet, FeatureTable
    from cpufw.core.model import Expansion

Words = Mapping[str, int]
"""Registers by name, as features' places name them: `{"7.0.EBX": 0x209}`."""


@dataclass(frozen=True, slots=True)
class Tsc:
    """The host's time-stamp counter: its frequency, and whether a guest can have another one.

    None where it is not known.
    """

    khz: int | None = None
    scaling: bool | None = None


@dataclass(eq=False)
class HostCapture:
    """A host as it was captured; it stands in for an accelerator wherever nothing runs.

    `name` is what reports call it. `features` are those that its accelerator can give a guest, by
    name, `withheld` those that the CPU has and the accelerator does not give. `unknown` are the
    words (`MSR.10A`) that whoever wrote the file did not look at: nothing is known of their
    features. `raw` holds the architecture's registers as text, `msrs` the feature MSRs, `system`
    what else tells two hosts apart (`kernel`, `microcode`, `cpufw`).
    """

    name: str
    arch: str
    source: str
    features: tuple[str, ...]
    identity: Mapping[str, Any]
    rules: CaptureRules | None = field(default=None, repr=False)
    accelerator: str = ""
    withheld: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    tsc: Tsc = Tsc()
    msrs: Mapping[int, int] = field(default_factory=dict)
    raw: Mapping[str, str] = field(default_factory=dict)
    system: Mapping[str, str] = field(default_factory=dict)
    accelerator_capabilities: Mapping[str, int] = field(default_factory=dict)

    @property
    def phys_bits(self) -> int | None:
        """Physical address bits of the host, None where not known."""
        return self.identity.get("phys-bits")

    def capabilities(self) -> Mapping[str, int]:
        """What the accelerator could do, by its own names; those that are 0 are left out."""
        return self.accelerator_capabilities

    def supported_features(self, table: FeatureTable) -> FeatureSet:
        """Every feature that this host can give a guest; names that `table` lacks are left out."""
        return table.set(name for name in self.features if name in table)

    def unrecognised_features(self, table: FeatureTable) -> tuple[str, ...]:
        """The names that `table` lacks: a newer cpufw knew them, or a foreign dump."""
        return tuple(name for name in self.features if name not in table)

    def unknown_features(self, table: FeatureTable) -> FeatureSet:
        """The features of which the capture says neither that they are there nor that not."""
        words = set(self.unknown)
        silent = table.set(each.name for each in table if words and word_of(each) in words)
        return silent - self.supported_features(table)

    def host_identity(self) -> Mapping[str, Any]:
        """The identity values of a guest that is to look like this host."""
        return self.identity

    def default_features(self, table: FeatureTable) -> tuple[FeatureSet, FeatureSet]:
        """What the accelerator turns on and off on every model.

        Nothing is turned on of which it is not known whether the host has it.
        """
        if self.rules is None:
            return table.empty, table.empty
        on, off = self.rules.default_features(table)
        return on - self.unknown_features(table), off

    def close(self) -> None:
        """Nothing to give back."""


@dataclass(frozen=True)
class LibvirtHost:
    """A host's CPU as `virsh capabilities` or `virsh domcapabilities` shows it, in libvirt's words.

    It has what `model` has, and `features`, but not what is `disabled`. `signature` is family,
    model and stepping.
    """

    name: str
    source: str
    model: str
    vendor: str
    features: frozenset[str]
    disabled: frozenset[str]
    signature: Mapping[str, int]
    phys_bits: int | None = None
    tsc: Tsc = Tsc()
    microcode: str = ""


class CaptureRules(Protocol):
    """What an architecture knows about capturing its hosts.

    `msr_names` are the manual's names of feature MSRs.
    """

    msr_names: Mapping[int, str]

    def capture(self, name: str, accelerator: Accelerator, table: FeatureTable) -> HostCapture:
        """This host, read through its opened accelerator. Raises `AcceleratorError`."""

    def read(
        self, name: str, document: str | Mapping[str, Any], table: FeatureTable
    ) -> HostCapture | None:
        """A host from another program's dump: its text, or the object that its JSON holds.

        None if it is not a dump that this architecture knows. Raises `DefinitionError`.
        """

    def read_libvirt(self, host: LibvirtHost, table: FeatureTable) -> HostCapture:
        """A host as libvirt describes it; its words become the architecture's."""

    def check_raw(self, text: str) -> None:
        """Raise `DefinitionError` with each line of a `HostCapture.raw` text that is malformed."""

    def default_features(self, table: FeatureTable) -> tuple[FeatureSet, FeatureSet]:
        """What the usual accelerator turns on and off on every model."""

    def aspect(self, feature: Feature) -> str:
        """What kind of feature it is, in a report's words: `CPUID`, `MSR`, `nested`."""

    def guest_phys_bits(self, expansion: Expansion, host: HostCapture) -> int:
        """The physical address bits that a guest of this CPU sees on `host`."""

    def guest_tsc_khz(self, expansion: Expansion, host: HostCapture) -> int | None:
        """The frequency of its time-stamp counter there, None where not known."""

    def needed_capabilities(self, expansion: Expansion) -> Mapping[str, str]:
        """The accelerator's capability that each setting of this CPU needs, by the setting."""

    def layout_differences(
        self, features: FeatureSet, source: HostCapture, target: HostCapture
    ) -> Iterable[str]:
        """Why the state of a guest with `features` does not fit from `source` to `target`."""

    def read_back(self, cpu: CPUState) -> tuple[Words, Words]:
        """The words that a realized CPU asked for, and those that the accelerator reports.

        All of them, also bits that no feature owns.
        """


def word_of(feature: Feature) -> str:
    """The register that holds a feature's (first) bit: `7.0.EBX`."""
    place = feature.places[0]
    return place.rpartition(":")[0] or place
