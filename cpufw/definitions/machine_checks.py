"""The third layer of checks, for machine types: names, versions and models."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cpufw.definitions.document import Step
from cpufw.definitions.features import unknown
from cpufw.definitions.machines import Data, machine_names, version_key


def machine_problems(
    data: Data, suffix: str, models: Collection[str], rejected: Collection[str]
) -> Iterator[tuple[str, list[Step]]]:
    """What a document of kind `machines` says that cannot be, and where.

    `models` are the names there are, `rejected` those that have been complained of already.
    """
    names: set[str] = set()
    for index, machine in enumerate(data["machines"]):
        where: list[Step] = ["machines", index]
        for name in machine_names({"machines": [machine]}):
            if name in names:
                yield f"machine type '{name}' is here twice", [*where, "name"]
            names.add(name)
        default = machine["default-cpu"]
        if default not in models and default not in rejected:
            yield unknown("CPU model", default, models), [*where, "default-cpu"]
        versions = machine.get("versions", [])
        if versions != sorted(versions, key=version_key):
            yield "versions are not in order, oldest first", [*where, "versions"]
        for key in ("max-cpus", "names"):
            yield from ((message, [*where, key]) for message in _uncovered(machine[key], versions))
    before = None
    for index, entry in enumerate(data.get("compat", ())):
        where = ["compat", index]
        version = version_key(entry["version"])
        if before is not None and version >= before:
            yield f"version {entry['version']} stands after an older one", [*where, "version"]
        before = version
        for model in entry["set"]:
            if model != suffix and model not in models and model not in rejected:
                yield unknown("CPU model", model, [*models, suffix]), [*where, "set", model]


def _uncovered(value: Any, versions: Sequence[str]) -> Iterator[str]:
    """What is wrong with a value by the version it holds from."""
    if isinstance(value, Mapping):
        if not versions:
            yield "this machine type has no versions: expected one value"
        elif min(map(version_key, value)) > version_key(versions[0]):
            yield f"version {versions[0]} has no value"
