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
        self._classes: dict[tuple[str, str], CPUClass] = {}  # by architecture and type name

    def type_names(self, only: str | None = None) -> Iterator[str]:
        """Every CPU type's name, or those of one architecture."""
        for arch in self.architectures if only is None else (only,):
            catalogue = self.catalogue(arch)
            for model in catalogue:
                if catalogue.typed(model.name) is model:
                    yield f"{model.name}-{self.suffix(arch)}"

    def type_name(self, arch: str, name: str) -> str:
        """The CPU type of the model that goes by `name`. Raises `NotFoundError`."""
        return f"{self.catalogue(arch).typed(name).name}-{self.suffix(arch)}"

    def cpu_class(self, type_name: str, arch: str | None = None) -> CPUClass:
        """The class of this CPU type: `cpu_class("Haswell-x86_64-cpu")`.

        Where several architectures have types of that name, of `arch`, else of the first. Raises
        `NotFoundError`, which offers the nearest names.
        """
        for each in sorted(self.architectures, key=lambda known: known != arch):
            found = self._classes.get((each, type_name)) or self._class_of(each, type_name)
            if found is not None:
                return found
        raise NotFoundError("CPU type", type_name, self.type_names())

    def _class_of(self, arch: str, type_name: str) -> CPUClass | None:
        catalogue, name = self.catalogue(arch), type_name.removesuffix("-" + self.suffix(arch))
        if name == type_name or name not in catalogue:
            return None
        model = catalogue[name]
        if catalogue.typed(name) is not model:
            return None
        key = arch, self.type_name(arch, name)
        if key not in self._classes:
            self._classes[key] = build_cpu_class(model, self.architectures[arch], key[1])
        return self._classes[key]
