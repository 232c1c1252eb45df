"""Commands about what the accelerator counts of the guest and of its CPUs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from cpufw.core.statistics import Statistic
from cpufw.monitor.command import command
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.schema import Alternate, Uint64, Variants

StatsTarget = Literal["vm", "vcpu", "cryptodev"]
StatsProvider = Literal["kvm", "cryptodev"]


class StatsRequest(TypedDict):
    provider: StatsProvider
    names: NotRequired[list[str]]


class StatsFilterBase(TypedDict):
    target: StatsTarget
    providers: NotRequired[list[StatsRequest]]


class StatsVCPUFilter(TypedDict):
    vcpus: NotRequired[list[str]]


StatsFilter = Annotated[StatsFilterBase, Variants("target", {"vcpu": StatsVCPUFilter})]
StatsValue = Annotated[Uint64 | bool | list[Uint64], Alternate("StatsValue")]


StatsType = Literal["cumulative", "instant", "peak", "linear-histogram", "log2-histogram"]
StatsUnit = Literal["bytes", "seconds", "cycles", "boolean"]


class Stats(TypedDict):
    name: str
    value: StatsValue


StatsResult = TypedDict(
    "StatsResult",
    {"provider": StatsProvider, "qom-path": NotRequired[str], "stats": list[Stats]},
)
StatsSchemaValue = TypedDict(
    "StatsSchemaValue",
    {
        "name": str,
        "type": StatsType,
        "unit": NotRequired[StatsUnit],
        "base": NotRequired[int],
        "exponent": int,
        "bucket-size": NotRequired[int],
    },
)


class StatsSchema(TypedDict):
    provider: StatsProvider
    target: StatsTarget
    stats: list[StatsSchemaValue]


@command("query-stats", blocks=True, boxed=True)
def query_stats(monitor: Monitor, filter: StatsFilter) -> list[StatsResult]:
    """What KVM counts of the VM or of each vCPU; empty without KVM, or where KVM tells nothing."""
    given: dict[str, Any] = dict(filter)
    wanted = _wanted(given.get("providers"))
    if wanted is not None and not wanted:
        return []
    board = monitor.machine.board
    if given["target"] == "vm":
        return _result(board.statistics(), wanted)
    if given["target"] != "vcpu":
        return []
    paths = given.get("vcpus")
    found: list[StatsResult] = []
    for slot in monitor.machine.slots:
        if (cpu := slot.cpu) is not None and (paths is None or cpu.path in paths):
            found += _result(board.statistics(slot), wanted, {"qom-path": cpu.path})
    return found


@command("query-stats-schemas", blocks=True)
def query_stats_schemas(
    monitor: Monitor, provider: StatsProvider | None = None
) -> list[StatsSchema]:
    """What the numbers of `query-stats` count."""
    if provider not in (None, "kvm"):
        return []
    board, slots = monitor.machine.board, monitor.machine.slots
    first = next((slot for slot in slots if slot.cpu is not None), None)
    known = {"vcpu": board.statistics(first) if first else [], "vm": board.statistics()}
    return [
        {"provider": "kvm", "target": target, "stats": [_described(each) for each in counters]}  # type: ignore[typeddict-item]
        for target, counters in known.items()
        if counters
    ]


def _wanted(providers: list[StatsRequest] | None) -> set[str] | None:
    """The names of KVM's counters that are asked for; None for all."""
    if providers is None:
        return None
    names: set[str] = set()
    for request in providers:
        if request["provider"] == "kvm":
            if "names" not in request:
                return None
            names.update(request["names"])
    return names


def _result(
    counters: list[Statistic], wanted: set[str] | None, more: dict[str, Any] | None = None
) -> list[StatsResult]:
    stats: list[Stats] = [
        {"name": each.name, "value": _value(each)}
        for each in counters
        if wanted is None or each.name in wanted
    ]
    return [{"provider": "kvm", **(more or {}), "stats": stats}] if stats else []  # type: ignore[typeddict-item]


def _value(counter: Statistic) -> Any:
    if len(counter.values) != 1:
        return list(counter.values)
    (value,) = counter.values
    return bool(value) if counter.unit == "boolean" else value


def _described(counter: Statistic) -> StatsSchemaValue:
    shown: dict[str, Any] = {"name": counter.name, "type": counter.kind}
    if counter.unit:
        shown["unit"] = counter.unit
    if counter.exponent:
        shown["base"] = counter.base
    shown["exponent"] = counter.exponent
    if counter.kind == "linear-histogram":
        shown["bucket-size"] = counter.bucket_size
    return shown  # type: ignore[return-value]
