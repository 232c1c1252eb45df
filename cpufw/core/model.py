"""CPU models: families with versions and aliases, and what a request makes of one."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from cpufw.core.features import FeatureSet, FeatureTable
from cpufw.errors import ModelError, NotFoundError, UsageError


@dataclass(frozen=True)
class CPUModel:
    """A named CPU: identity values and features, independent of any machine.

    `family` is the unversioned name (`Haswell`), `version` None only for that name itself and
    for models that have no versions. `companions` maps a feature to those that come along when
    it is turned on. `dynamic` models (`host`, `max`) are filled in by the accelerator; `static`
    ones never change.
    """

    arch: str
    name: str
    family: str
    features: FeatureSet
    version: int | None = None
    alias_of: str | None = None
    description: str = ""
    source: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    companions: Mapping[str, FeatureSet] = field(default_factory=dict)
    deprecated: bool = False
    dynamic: bool = False
    static: bool = False

    @property
    def table(self) -> FeatureTable:
        """The feature table of this model's architecture."""
        return self.features.table


class AliasRule(enum.Enum):
    """What an unversioned name means on a machine type."""

    FIRST = "first"
    NEWEST = "newest"
    NONE = "none"  # no version: it is a model of its own, which machine types may change


class Catalogue:
    """Every model of one architecture by name, in definition order.

    `models` are the models, or for each name what makes its model when it is first asked for.
    Unless `case_sensitive`, names are looked up in any case; the models keep theirs.
    `static_names` tells the static models without making any other.
    """

    def __init__(
        self,
        arch: str,
        table: FeatureTable,
        models: Iterable[CPUModel] | Mapping[str, Callable[[], CPUModel]],
        case_sensitive: bool = True,
        static_names: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self.arch, self.table = arch, table
        self._static_names = static_names
        self._key: Callable[[str], str] = str if case_sensitive else str.lower
        self._made: dict[str, CPUModel] = {}
        self._make: Mapping[str, Callable[[], CPUModel]] = {}
        if isinstance(models, Mapping):
            self._make = models
        else:
            self._made = {model.name: model for model in models}
        self._names = {self._key(name): name for name in self._make or self._made}

    def __iter__(self) -> Iterator[CPUModel]:
        return map(self._model, self.names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._key(name) in self._names

    def __getitem__(self, name: str) -> CPUModel:
        """The model of this name. Raises `NotFoundError` with the nearest names."""
        try:
            known = self._names[self._key(name)]
        except KeyError:
            raise NotFoundError("CPU model", name, self.names) from None
        return self._model(known)

    @property
    def names(self) -> Collection[str]:
        """The name of every model; no model is made for it."""
        return self._names.values()

    @cached_property
    def static(self) -> Sequence[CPUModel]:
        """The models that never change, from which static expansions start."""
        names = self.names if self._static_names is None else self._static_names()
        return [model for model in map(self._model, names) if model.static]

    def _model(self, name: str) -> CPUModel:
        model = self._made.get(name)
        if model is None:
            model = self._made[name] = self._make[name]()
        return model

    def newest(self, family: str) -> CPUModel | None:
        """The newest version of `family`, None if it has no versions."""
        prefix = f"{family}-v"
        numbers = [name.removeprefix(prefix) for name in self.names if name.startswith(prefix)]
        for number in sorted(filter(str.isdecimal, numbers), key=int, reverse=True):
            model = self._model(prefix + number)
            if (model.family, model.version) == (family, int(number)):
                return model
        return None

    def typed(self, name: str) -> CPUModel:
        """The model whose name the CPU type of `name` bears.

        A version's alias has a CPU type of its own; any other alias is only another name of a
        model and shares its type. Raises `NotFoundError`.
        """
        model = self[name]
        target = self[model.alias_of] if model.alias_of is not None else model
        return model if target.version is not None else target

    def resolve(self, name: str, rule: AliasRule = AliasRule.FIRST) -> CPUModel:
        """The definition that `name` stands for under a machine type's alias `rule`.

        The result keeps the name asked for. Raises `NotFoundError`.
        """
        model = self[name]
        newest = self.newest(name) if rule is AliasRule.NEWEST and name == model.family else None
        if newest is not None:
            return replace(newest, name=model.name, version=None, alias_of=newest.name)
        return replace(model, alias_of=None) if rule is AliasRule.NONE else model


@dataclass(frozen=True)
class CPURequest:
    """What a user asks for: `Haswell,+pcid,-avx,stepping=3` taken apart.

    `properties` holds `name=value` parts as written, `plus` and `minus` the signed features.
    """

    model: str
    plus: tuple[str, ...] = ()
    minus: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Name and value of every property it sets; `-feature` wins over the rest, as in QEMU."""
        return {
            **self.properties,
            **dict.fromkeys(self.plus, True),
            **dict.fromkeys(self.minus, False),
        }


def parse_cpu(text: str) -> CPURequest:
    """The parts of a `--cpu` string. Raises `UsageError` for a malformed part."""
    name, *parts = text.split(",")
    if not name:
        raise UsageError("--cpu: the model's name is empty, expected for example Haswell,+pcid")
    plus: list[str] = []
    minus: list[str] = []
    properties: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and key:
            properties.pop(key, None)  # the last setting counts, also where properties overlap
            properties[key] = value
        elif part[:1] == "+" and len(part) > 1:
            plus.append(part[1:])
        elif part[:1] == "-" and len(part) > 1:
            minus.append(part[1:])
        elif part:
            properties[part] = "on"  # as in QEMU, a bare name turns a property on
        else:
            raise UsageError(f"--cpu: '{text}' has an empty part between commas")
    return CPURequest(name, tuple(plus), tuple(minus), properties)


@dataclass(frozen=True, eq=False)
class Expansion:
    """A model with a user's wishes applied: what will be asked of the accelerator.

    `dropped` are the model's features that went because the user turned off one they require.
    It equals nothing but itself, so that it can be the key of what follows from it.
    """

    model: CPUModel
    features: FeatureSet
    identity: Mapping[str, Any]
    dropped: FeatureSet


def expand(
    model: CPUModel,
    plus: FeatureSet,
    minus: FeatureSet,
    identity: Mapping[str, Any],
    defaults_on: FeatureSet | None = None,
    defaults_off: FeatureSet | None = None,
) -> Expansion:
    """Apply the accelerator's defaults, then the user's features and identity values.

    Companions of a feature come with it. Raises `ModelError` when a feature the user turned on
    lacks one it requires.
    """
    features = model.features
    if defaults_on is not None:
        features |= defaults_on
    if defaults_off is not None:
        features -= defaults_off
    for trigger, companions in model.companions.items():
        if trigger in features or trigger in plus:
            features |= companions
    features |= plus
    wanted = features
    features = features.without(minus)
    lost = features.unmet()
    for name in (*(plus - features), *lost):
        if name in plus and name not in minus:
            needed = model.table.set([name]).with_requirements() - (wanted - minus)
            missing = ", ".join(needed - model.table.set([name]))
            raise ModelError(
                f"{model.name}: +{name} requires {missing}, "
                f"which {'was turned off' if needed & minus else 'this model does not have'}; "
                f"add +{',+'.join(needed - model.table.set([name]))} or drop +{name}"
            )
    features = features.without(model.table.set(lost))
    return Expansion(model, features, {**model.identity, **identity}, (wanted - minus) - features)
