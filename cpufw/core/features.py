"""CPU features and sets of them: bit-set algebra with dependencies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

from cpufw.errors import ModelError, NotFoundError


class Feature(NamedTuple):
    """One named capability of a CPU and the place where a guest finds it.

    `places` are the architecture's own spelling, such as `7.0.EBX:5` on x86; `aliases` maps a
    project (`qemu`, `linux`, `libvirt`) to the names it uses where they differ from `name`.
    `groups` are the names under which it can be set together with others; `since` says what
    introduced it, in the architecture's own spelling; `deprecated` features should not be used.
    """

    name: str
    places: tuple[str, ...]
    requires: tuple[str, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    migratable: bool = True
    vendors: tuple[str, ...] = ()
    description: str = ""
    source: str = ""
    groups: tuple[str, ...] = ()
    since: str = ""
    deprecated: bool = False


class FeatureTable:
    """Every feature of one architecture, in definition order; the universe of its sets.

    Where features are named to be set, tested or put into a `set`, a group's name means all of
    its members; `table["msa"]` and `table.bit("msa")` know single features only.
    """

    def __init__(self, arch: str, features: Sequence[Feature]) -> None:
        self.arch = arch
        self.features = tuple(features)
        self._index = {feature.name: bit for bit, feature in enumerate(self.features)}
        self._names = dict(self._index)
        for bit, feature in enumerate(self.features):
            for alias in feature.aliases.get("qemu", ()):
                self._names.setdefault(alias, bit)
        self._group_masks: dict[str, int] = {}
        for bit, feature in enumerate(self.features):
            for group in feature.groups:
                self._group_masks[group] = self._group_masks.get(group, 0) | 1 << bit
        single = {name: 1 << bit for name, bit in self._names.items()}
        self._masks = {**single, **self._group_masks}

    def __len__(self) -> int:
        return len(self.features)

    def __iter__(self) -> Iterator[Feature]:
        return iter(self.features)

    def __contains__(self, name: object) -> bool:
        return name in self._masks

    def __getitem__(self, name: str) -> Feature:
        """The feature with this name or QEMU alias. Raises `NotFoundError`."""
        return self.features[self.bit(name)]

    def bit(self, name: str) -> int:
        """The position of `name` (or an alias) in masks. Raises `NotFoundError`."""
        try:
            return self._names[name]
        except KeyError:
            raise NotFoundError(f"{self.arch} feature", name, self._names) from None

    def mask(self, name: str) -> int:
        """The mask of the feature `name` (or an alias), or of a group. Raises `NotFoundError`."""
        try:
            return self._masks[name]
        except KeyError:
            return 1 << self.bit(name)  # which says that there is none

    def set(self, names: Iterable[str] = ()) -> FeatureSet:
        """The set of the features with these names, groups in full. Raises `NotFoundError`."""
        mask, masks = 0, self._masks
        for name in names:
            mask |= masks.get(name) or self.mask(name)
        return FeatureSet(self, mask)

    @cached_property
    def groups(self) -> Mapping[str, FeatureSet]:
        """The members of each group, in the order of their first members."""
        return {name: FeatureSet(self, mask) for name, mask in self._group_masks.items()}

    @cached_property
    def empty(self) -> FeatureSet:
        """The set with nothing in it."""
        return FeatureSet(self, 0)

    @cached_property
    def unmigratable(self) -> FeatureSet:
        """The features that tie a guest to its host."""
        return self.set(feature.name for feature in self.features if not feature.migratable)

    @cached_property
    def deprecated(self) -> FeatureSet:
        """The features that should no longer be used."""
        return self.set(feature.name for feature in self.features if feature.deprecated)

    @cached_property
    def requirement_masks(self) -> tuple[int, ...]:
        """For each feature, the mask of all that it requires, directly or not."""
        masks: list[int | None] = [None] * len(self.features)

        def closure(bit: int, path: tuple[int, ...]) -> int:
            if bit in path:
                cycle = " -> ".join(self.features[step].name for step in (*path, bit))
                raise ModelError(f"{self.arch} features require one another in a circle: {cycle}")
            known = masks[bit]
            if known is None:
                known = 0
                for name in self.features[bit].requires:
                    needed = self.bit(name)
                    known |= 1 << needed | closure(needed, (*path, bit))
                masks[bit] = known
            return known

        return tuple(closure(bit, ()) for bit in range(len(self.features)))

    @cached_property
    def dependent_masks(self) -> tuple[int, ...]:
        """For each feature, the mask of all that cannot be without it."""
        masks = [0] * len(self.features)
        for bit, needed in enumerate(self.requirement_masks):
            for other in bits(needed):
                masks[other] |= 1 << bit
        return tuple(masks)


class FeatureSet:
    """An immutable set of features of one `FeatureTable`; iterates names in table order.

    `|`, `&`, `-`, `^`, `<=`, `<` behave as for Python sets; mixing architectures raises
    `ModelError`.
    """

    __slots__ = ("mask", "table")

    def __init__(self, table: FeatureTable, mask: int) -> None:
        self.table, self.mask = table, mask

    def _other(self, other: FeatureSet) -> int:
        if other.table is not self.table:
            raise ModelError(
                f"features of {self.table.arch} and {other.table.arch} cannot be combined"
            )
        return other.mask

    def __or__(self, other: FeatureSet) -> FeatureSet:
        return FeatureSet(self.table, self.mask | self._other(other))

    def __and__(self, other: FeatureSet) -> FeatureSet:
        return FeatureSet(self.table, self.mask & self._other(other))

    def __sub__(self, other: FeatureSet) -> FeatureSet:
        return FeatureSet(self.table, self.mask & ~self._other(other))

    def __xor__(self, other: FeatureSet) -> FeatureSet:
        return FeatureSet(self.table, self.mask ^ self._other(other))

    def __le__(self, other: FeatureSet) -> bool:
        return not self.mask & ~self._other(other)

    def __lt__(self, other: FeatureSet) -> bool:
        return self <= other and self.mask != other.mask

    def __ge__(self, other: FeatureSet) -> bool:
        return other <= self

    def __gt__(self, other: FeatureSet) -> bool:
        return other < self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FeatureSet):
            return NotImplemented
        return self.table is other.table and self.mask == other.mask

    def __hash__(self) -> int:
        return hash((id(self.table), self.mask))

    def __bool__(self) -> bool:
        return bool(self.mask)

    def __len__(self) -> int:
        return self.mask.bit_count()

    def __iter__(self) -> Iterator[str]:
        features = self.table.features
        return (features[bit].name for bit in bits(self.mask))

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or name not in self.table:
            return False
        return not self.table.mask(name) & ~self.mask

    def __repr__(self) -> str:
        return f"FeatureSet({self.table.arch}: {' '.join(self) or '(none)'})"

    def grouped(self) -> tuple[str, ...]:
        """The shortest list of names for this set: complete groups, then the other features."""
        groups = [name for name in self.table.groups if name in self]
        rest = self - self.table.set(groups)
        return (*groups, *rest)

    def with_requirements(self) -> FeatureSet:
        """This set and everything that its members require."""
        needed = self.table.requirement_masks
        mask = self.mask
        for bit in bits(self.mask):
            mask |= needed[bit]
        return FeatureSet(self.table, mask)

    def unmet(self) -> dict[str, tuple[str, ...]]:
        """Each member that lacks something it requires, with the names of what is missing."""
        missing: dict[str, tuple[str, ...]] = {}
        needed = self.table.requirement_masks
        for bit in bits(self.mask):
            lacking = needed[bit] & ~self.mask
            if lacking:
                missing[self.table.features[bit].name] = tuple(FeatureSet(self.table, lacking))
        return missing

    def without(self, gone: FeatureSet) -> FeatureSet:
        """This set less `gone` and less every member that requires one of `gone`."""
        dependents = self.table.dependent_masks
        mask = self.mask & ~self._other(gone)
        for bit in bits(gone.mask):
            mask &= ~dependents[bit]
        return FeatureSet(self.table, mask)


def bits(mask: int) -> Iterator[int]:
    """The positions of the bits that are set in `mask`, lowest first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
