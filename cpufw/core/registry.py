"""Names to classes: a CPU type's Python class is built when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from cpufw.core.arch import Architecture
from cpufw.core.cpu import CPUClass, build_cpu_class
from cpufw.core.model import Catalogue
from cpufw.errors import NotFoundError


class Registry:
    """Every CPU type of every architecture.

    `catalogue` loads the models of one architecture; `suffix` gives what the architecture's
    type names end in (`x86_64-cpu`).
    """

    def __init__(
        self,
        architectures: Mapping[str, Architecture],
        catalogue: Callable[[str], Catalogue],
        suffix: Callable[[str], str],
    ) -> None:
        self.architectures = architectures
        self.catalogue, self.suffix = catalogue, suffix
        self._classes: dict[str, CPUClass] = {}

    def type_names(self) -> Iterator[str]:
        """Every CPU type's name."""
        for arch in self.architectures:
            suffix = self.suffix(arch)
            for model in self.catalogue(arch):
                yield f"{model.name}-{suffix}"

    def cpu_class(self, type_name: str) -> CPUClass:
        """The class of this CPU type: `cpu_class("Haswell-x86_64-cpu")`.

        Raises `NotFoundError`, which offers the nearest names.
        """
        found = self._classes.get(type_name)
        if found is not None:
            return found
        for arch, architecture in self.architectures.items():
            suffix = self.suffix(arch)
            name = type_name.removesuffix("-" + suffix)
            if name != type_name and name in self.catalogue(arch):
                model = self.catalogue(arch)[name]
                return self._classes.setdefault(
                    type_name, build_cpu_class(model, architecture, type_name)
                )
        raise NotFoundError("CPU type", type_name, self.type_names())
