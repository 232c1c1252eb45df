"""Machine types that only describe CPUs, from definitions of kind `machines`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from cpufw.core.arch import CompatProperty, MachineType
from cpufw.core.board import BareBoard
from cpufw.core.model import AliasRule

Data = Mapping[str, Any]
_Value = TypeVar("_Value")


def version_key(version: str) -> tuple[int, ...]:
    """What sorts versions: `2.10` comes after `2.9`."""
    return tuple(map(int, version.split(".")))


def machine_names(data: Data) -> Iterator[str]:
    """The name of every machine type in `data`, and every alias."""
    for machine in data["machines"]:
        for version in machine.get("versions", ("",)):
            yield f"{machine['name']}-{version}" if version else machine["name"]
        if "alias" in machine:
            yield machine["alias"]


def machine_type(data: Data, name: str, suffix: str) -> MachineType | None:
    """The machine type that `data` gives the name or alias `name`, or None.

    `suffix` is what the architecture's CPU types end in.
    """
    for machine in data["machines"]:
        family, versions = machine["name"], machine.get("versions", ())
        newest = max(versions, key=version_key, default=None)
        alias = machine.get("alias")
        if name == alias:
            return _build(data, machine, newest, suffix)
        version = name.removeprefix(f"{family}-") if versions else None
        if version in versions or (not versions and name == family):
            return _build(data, machine, version, suffix)
    return None


def _build(data: Data, machine: Data, version: str | None, suffix: str) -> MachineType:
    versions = machine.get("versions", ())
    newest = version == max(versions, key=version_key, default=None)
    return MachineType(
        f"{machine['name']}-{version}" if version else machine["name"],
        data["arch"],
        machine["description"],
        default_cpu=machine["default-cpu"],
        max_cpus=_at(machine["max-cpus"], version),
        board=BareBoard,
        alias=machine.get("alias") if newest else None,
        alias_rule=AliasRule(_at(machine["names"], version)),
        compat=tuple(_compat(data, version, suffix)) if version else (),
        accel=None,
        can_unplug=machine.get("unplug", True),
        ram_id=machine.get("ram", ""),
        hotpluggable_cpus=machine.get("hotpluggable-cpus", True),
        numa_memory=_up_to(machine.get("numa-memory"), version),
        deprecated=_up_to(machine.get("deprecated"), version),
    )


def _up_to(last: str | None, version: str | None) -> bool:
    """Whether `version` is one of those up to `last`."""
    if last is None or version is None:
        return False
    return version_key(version) <= version_key(last)


def _at(value: Mapping[str, _Value] | _Value, version: str | None) -> _Value:
    """What holds at `version`, of a value or of values by the version they hold from."""
    if not isinstance(value, Mapping) or version is None:
        return value  # type: ignore[return-value]  # the schema gives unversioned machines a value
    since = [each for each in value if version_key(each) <= version_key(version)]
    return value[max(since, key=version_key)]


def _compat(data: Data, version: str, suffix: str) -> Iterator[CompatProperty]:
    for entry in data.get("compat", ()):
        if version_key(version) <= version_key(entry["version"]):
            for model, values in entry["set"].items():
                type_name = suffix if model == suffix else f"{model}-{suffix}"
                for name, value in values.items():
                    yield CompatProperty(type_name, name, str(value))
