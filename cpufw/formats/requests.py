"""From a set of features to a model and what must be added to and taken from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpufw.core.algebra import runnable
from cpufw.core.model import CPUModel, CPURequest

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUClass, CPUState
    from cpufw.core.features import FeatureSet
    from cpufw.formats.format import Models


def named_models(models: Models, arch: str) -> list[CPUModel]:
    """The models of `arch` that stand for themselves: no aliases, nothing an accelerator fills."""
    return [
        model
        for model in models.catalogue(arch)
        if model.alias_of is None and not model.dynamic and not model.static
    ]


def nearest_model(
    candidates: Iterable[CPUModel],
    distance: Mapping[str, int],
    identity: Mapping[str, Any],
    telling: Sequence[tuple[str, ...]] = (("vendor",),),
) -> CPUModel | None:
    """The candidate with the least `distance` (by model name).

    Those that share the `telling` values of `identity`, group by group, go before all others.
    Among equals the one that shares most of the other values, then the first.
    """

    def differs(model: CPUModel, name: str) -> bool:
        return name in identity and model.identity.get(name) != identity[name]

    return min(
        candidates,
        key=lambda model: (
            [any(differs(model, name) for name in group) for group in telling],
            distance[model.name],
            sum(differs(model, name) for name in identity),
        ),
        default=None,
    )


def nearest_by_features(
    candidates: Iterable[CPUModel], features: FeatureSet, identity: Mapping[str, Any]
) -> CPUModel | None:
    """The candidate that differs in the fewest features."""
    candidates = list(candidates)
    distance = {model.name: len(model.features ^ features) for model in candidates}
    return nearest_model(candidates, distance, identity)


def own_features(cpu_class: CPUClass) -> FeatureSet:
    """What a CPU of this type has if nothing is said: the model's and what is always on."""
    cpu: CPUState = cpu_class()
    return cpu.expand().features


def signed_features(
    cpu_class: CPUClass, wanted: FeatureSet
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What to turn on and what to turn off so that a CPU of this type has exactly `wanted`.

    Features that come along with another one are not turned on by themselves. `wanted` must have
    all that its members require.
    """
    own = own_features(cpu_class)
    missing = wanted - own
    along = wanted.table.empty
    for trigger, companions in cpu_class.model.companions.items():
        if trigger in missing:
            along |= companions
    return tuple(missing - along), tuple((own | along) - wanted)


def request_for(
    cpu_class: CPUClass,
    wanted: FeatureSet,
    properties: Mapping[str, str] | None = None,
) -> CPURequest:
    """The request for a CPU of this type with exactly the features `wanted`."""
    plus, minus = signed_features(cpu_class, wanted)
    return CPURequest(cpu_class.model.name, plus, minus, dict(properties or {}))


def completed(cpu_class: CPUClass, on: FeatureSet, unknown: FeatureSet) -> FeatureSet:
    """`on`, and of the `unknown` features those that a CPU of this type has with them.

    What lacks something it requires is left out.
    """
    found = own_features(cpu_class)
    for trigger, companions in cpu_class.model.companions.items():
        if trigger in on:
            found |= companions
    return runnable(on | (found & unknown))


def given_identity(cpu: CPUState) -> dict[str, Any]:
    """The identity values that the user set on `cpu`, by name."""
    found = {name: cpu.given(name) for name in cpu.extra_properties}
    return {name: value for name, value in found.items() if value is not None}


def given_features(cpu: CPUState) -> tuple[FeatureSet, FeatureSet]:
    """The features that the user turned on and off on `cpu`."""
    table = cpu.model.table
    given = {feature.name: cpu.given(feature.name) for feature in table}
    return (
        table.set(name for name, value in given.items() if value is True),
        table.set(name for name, value in given.items() if value is False),
    )


def given_behaviour(cpu: CPUState) -> dict[str, bool]:
    """`enforce` and `check`, where the user set them to what they are not by themselves."""
    values = {"enforce": cpu.get("enforce"), "check": cpu.get("check")}
    return {name: value for name, value in values.items() if value is not (name == "check")}


def changed_identity(
    cpu_class: CPUClass, identity: Mapping[str, Any], base: CPUClass
) -> dict[str, Any]:
    """The values of a CPU's `identity` that a CPU of type `base` does not have by itself."""
    names = dict.fromkeys((*cpu_class.model.identity, *base.model.identity))
    names |= dict.fromkeys(cpu_class.extra_properties)  # type: ignore[attr-defined]
    mine = {name: identity.get(name, _usual(cpu_class, name)) for name in names}
    return {name: value for name, value in mine.items() if value != _usual(base, name)}


def _usual(cpu_class: CPUClass, name: str) -> Any:
    spec = cpu_class.properties.get(name)
    return spec.default if spec is not None else cpu_class.model.identity.get(name)


def spelled(value: Any) -> str:
    """A property's value as a command line spells it; large numbers, which are leaves, in hex."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:#x}" if isinstance(value, int) and value > 0xFFFF else str(value)


def settings(values: Mapping[str, Any]) -> tuple[str, ...]:
    """`name=value` for each; `...` stands for what a command line has no spelling for."""
    return tuple(
        f"{name}={spelled(value) if isinstance(value, str | int) else '...'}"
        for name, value in values.items()
    )


def switched(on: Iterable[str], off: Iterable[str]) -> tuple[str, ...]:
    """`name=on` and `name=off` for features."""
    return (*(f"{name}=on" for name in on), *(f"{name}=off" for name in off))


def request_text(request: CPURequest) -> str:
    """The request as `--cpu` takes it: `Haswell,+pcid,-avx,stepping=3`."""
    return ",".join(
        (
            request.model,
            *(f"+{name}" for name in request.plus),
            *(f"-{name}" for name in request.minus),
            *(f"{name}={value}" for name, value in request.properties.items()),
        )
    )
