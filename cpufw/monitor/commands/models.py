"""Commands about CPU models: which there are, what they are made of, how they compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from cpufw.core.model_algebra import ExpandedModel, ExpandingRules
from cpufw.monitor.command import command
from cpufw.monitor.errors import QmpError
from cpufw.monitor.monitor import Monitor

if TYPE_CHECKING:
    from cpufw.core.algebra import Operand
    from cpufw.core.cpu import CPUClass, CPUState
    from cpufw.core.model import CPUModel
    from cpufw.core.model_algebra import ModelAlgebra

_NO_SUCH_MODEL = "CPU model '{name}' not found"  # as QEMU says it of x86

CpuModelExpansionType = Literal["static", "full"]
CpuModelCompareResult = Literal["incompatible", "identical", "superset", "subset"]
CpuDefinitionInfo = TypedDict(
    "CpuDefinitionInfo",
    {
        "name": str,
        "migration-safe": NotRequired[bool],
        "static": bool,
        "unavailable-features": NotRequired[list[str]],
        "typename": str,
        "alias-of": NotRequired[str],
        "deprecated": bool,
    },
)
CpuModelCompareInfo = TypedDict(
    "CpuModelCompareInfo",
    {"result": CpuModelCompareResult, "responsible-properties": list[str]},
)


class CpuModelInfo(TypedDict):
    name: str
    props: NotRequired[Any]


CpuModelExpansionInfo = TypedDict(
    "CpuModelExpansionInfo",
    {"model": CpuModelInfo, "deprecated-props": NotRequired[list[str]]},
)


class CpuModelBaselineInfo(TypedDict):
    model: CpuModelInfo


@command("query-cpu-definitions")
def query_cpu_definitions(monitor: Monitor) -> list[CpuDefinitionInfo]:
    """The CPU models of the machine's architecture, and what of each this host lacks."""
    arch = monitor.machine.cpu_class.arch
    return [_definition(monitor, model) for model in monitor.framework.catalogue(arch)]


def _definition(monitor: Monitor, model: CPUModel) -> CpuDefinitionInfo:
    framework, machine = monitor.framework, monitor.machine
    catalogue = framework.catalogue(model.arch)
    type_name = framework.registry.type_name(model.arch, model.name)
    answer: CpuDefinitionInfo = {
        "name": model.name,
        "typename": type_name,
        "static": model.static,
        "deprecated": model.deprecated,
    }
    if catalogue.static:  # without static models there is nothing that a model could stay
        answer["migration-safe"] = not model.dynamic
    alias_of = catalogue.resolve(model.name, machine.machine_type.alias_rule).alias_of
    if alias_of is not None and catalogue[alias_of].version is not None:
        answer["alias-of"] = alias_of
    if machine.accelerator is not None:
        lacking = framework.unavailable_features(type_name, machine.accelerator)
        answer["unavailable-features"] = list(lacking)
    return answer


@command("query-cpu-model-expansion")
def query_cpu_model_expansion(
    monitor: Monitor, type: CpuModelExpansionType, model: CpuModelInfo
) -> CpuModelExpansionInfo:
    """A model with its properties written out, as it would be on this machine."""
    algebra = _algebra(monitor)
    if type == "static" and not algebra.catalogue.static:
        raise QmpError("The requested expansion type is not supported")
    cpu = _cpu(monitor, model)
    expanded = algebra.expand(cpu, type, monitor.machine)
    operand, table = algebra.operand(cpu, monitor.machine), algebra.catalogue.table
    name, props = expanded.name, dict(expanded.props)
    if isinstance(algebra.rules, ExpandingRules):
        if type == "full":  # QEMU's is the static model with everything set
            name = algebra.static(operand).name
    elif type == "static":  # as in QEMU also what is off, so that it shows what could be on
        props |= {each.name: each.name in operand.features for each in table}
    else:
        props |= {n: cpu.get(n) for n in cpu.property_specs() if n not in props and n not in table}
        props |= {n: table[n].name in operand.features for n in cpu.property_specs() if n in table}
    answer: CpuModelExpansionInfo = {"model": _info(name, props)}
    deprecated = table.set(each.name for each in table if each.deprecated)
    if deprecated:
        shown = deprecated if type == "full" else deprecated & operand.features
        answer["deprecated-props"] = list(shown)
    return answer


@command("query-cpu-model-comparison")
def query_cpu_model_comparison(
    monitor: Monitor, modela: CpuModelInfo, modelb: CpuModelInfo
) -> CpuModelCompareInfo:
    """How `modela` stands to `modelb`, and the properties that make the difference."""
    algebra = _algebra(monitor)
    found = algebra.compare(_operand(monitor, modela), _operand(monitor, modelb))
    return {
        "result": found.relation.value,
        "responsible-properties": list(found.responsible),
    }


@command("query-cpu-model-baseline")
def query_cpu_model_baseline(
    monitor: Monitor, modela: CpuModelInfo, modelb: CpuModelInfo
) -> CpuModelBaselineInfo:
    """The richest CPU that can run wherever either of two models can.

    As a static model with properties; on an architecture without those, as the nearest named one.
    """
    from cpufw.core.algebra import common
    from cpufw.fleet.named import closest

    algebra = _algebra(monitor)
    shared = common([_operand(monitor, modela), _operand(monitor, modelb)], algebra.rules)
    if algebra.catalogue.static:
        static = algebra.static(shared)
        return {"model": _info(static.name, static.props)}
    named = closest(algebra, shared)
    if named is None:
        raise QmpError("No CPU model is known that both could be")
    on, off = dict.fromkeys(named.adds, True), dict.fromkeys(named.drops, False)
    return {"model": _info(named.name, on | off)}


def _algebra(monitor: Monitor) -> ModelAlgebra:
    return monitor.framework.algebra(monitor.machine.cpu_class.arch)


def _info(name: str, props: Mapping[str, Any]) -> CpuModelInfo:
    return {"name": name, "props": dict(props)} if props else {"name": name}


def _operand(monitor: Monitor, model: CpuModelInfo) -> Operand:
    return _algebra(monitor).operand(_cpu(monitor, model), monitor.machine)


def _cpu(monitor: Monitor, model: CpuModelInfo) -> CPUState:
    """The CPU that `model` names, not realized. Raises `QmpError`."""
    framework, arch = monitor.framework, monitor.machine.cpu_class.arch
    catalogue, name = framework.catalogue(arch), model["name"]
    if name not in catalogue:
        text = framework.architectures[arch].wording.get("no-such-model", _NO_SUCH_MODEL)
        assert isinstance(text, str)
        raise QmpError(text.format(name=name))
    props: Any = model.get("props", {})
    if not isinstance(props, dict):
        raise QmpError("Invalid parameter type for 'model.props', expected: object")
    cpu_class = framework.find_model(name, arch)
    for key, value in props.items():
        if key not in catalogue.table.groups:
            _check_type(cpu_class, key, value)
    return _algebra(monitor).cpu(ExpandedModel(name, props))


def _check_type(cpu_class: CPUClass, name: str, value: Any) -> None:
    if name == "type":
        raise QmpError(f"Property '{cpu_class.type_name}.type' is not writable")
    spec = cpu_class.properties.get(name)
    if spec is None:
        if name in cpu_class.model.identity:
            return  # a value that belongs to the model, such as its caches
        raise QmpError(f"Property '{cpu_class.type_name}.{name}' not found")
    if spec.type in ("bool", "string"):
        kind, expected = (bool, "boolean") if spec.type == "bool" else (str, "string")
        if not isinstance(value, kind):
            text = f"Invalid parameter type for 'model.props.{name}', expected: {expected}"
            raise QmpError(text)
    elif isinstance(value, bool) or not isinstance(value, int):
        raise QmpError(f"Parameter 'model.props.{name}' expects uint64")
