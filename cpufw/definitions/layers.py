"""The definition folders in use, one upon the other, and the index of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpufw.definitions.stamp import signature, write_stamp
from cpufw.errors import CpufwError, DefinitionError

if TYPE_CHECKING:
    from cpufw.core.model import Catalogue
    from cpufw.definitions.compiled import CompiledArch
    from cpufw.definitions.index import Index, Row
    from cpufw.definitions.stamp import PluginPoint, Signature, Stamp


class Layers:
    """Definition folders in the order in which they were added.

    Indexes come from the fresh `stamp`, if there is one, as long as the folders are those that it
    recorded, and else from `load_folder`. `progress` is told of compiling: files done, files in
    all.
    """

    def __init__(self, stamp: Stamp | None, progress: Callable[[int, int], None] | None) -> None:
        self.indexes: dict[Path, Index] = {}
        self._recorded = list(stamp.indexes) if stamp is not None else []
        self._sources: dict[str, Signature] = dict(stamp.sources) if stamp is not None else {}
        self._files: dict[Path, str | None] = {}
        self._progress = progress

    def add(self, folder: Path, alone: bool = False) -> None:
        """Load the definitions in `folder`, unless they are loaded.

        An architecture's own stand `alone`, so that their index can be shipped. Raises
        `DefinitionError` with every problem in them, `CpufwError` if there is no such folder or
        it gives features to an architecture that has some.
        """
        if folder in self.indexes:
            return
        index, file, seen = self._recall(folder) or self._load(folder, alone)
        for arch in sorted(index.archs.keys() & self.archs) if alone else ():
            raise CpufwError(f"{folder} defines features of {arch}, which are defined already")
        self.indexes[folder], self._files[folder], self._sources[str(folder)] = index, file, seen

    def _recall(self, folder: Path) -> tuple[Index, str | None, Signature] | None:
        # An index fits only upon those that it was made upon: what comes after another is loaded.
        if self._recorded and self._recorded[0][0] == str(folder):
            name, file, index = self._recorded.pop(0)
            return index, file, self._sources[name]
        self._recorded.clear()
        return None

    def _load(self, folder: Path, alone: bool) -> tuple[Index, str | None, Signature]:
        from cpufw.definitions.store import load_folder

        seen = signature(str(folder)) if folder.is_dir() else []
        base = {} if alone else self.compiled()
        keys = [] if alone else [index.key for index in self.indexes.values()]
        index, file = load_folder(folder, base, keys, self._progress)
        return index, str(file) if file is not None else None, seen

    @property
    def archs(self) -> set[str]:
        """The architectures that have features."""
        return {arch for index in self.indexes.values() for arch in index.archs}

    def record(
        self, folders: Sequence[str], environment: Signature, plugins: Sequence[PluginPoint]
    ) -> None:
        """Write the stamp for the user's `folders`, if all indexes are in files."""
        indexes = [
            (str(folder), file, index.key)
            for folder, index in self.indexes.items()
            if (file := self._files[folder]) is not None
        ]
        if len(indexes) == len(self.indexes):
            sources = {folder: self._sources[folder] for folder, _, _ in indexes}
            write_stamp(folders, environment, sources, indexes, plugins)

    def listing(self) -> list[Row]:
        """One row a model name, as `list-models` shows them."""
        return [row for index in self.indexes.values() for row in index.listing()]

    def machines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each document of kind `machines`, with its architecture."""
        for index in self.indexes.values():
            for arch, documents in index.machines().items():
                for document in documents:
                    yield arch, document

    def suffix(self, arch: str) -> str:
        """What the type names of `arch` end in: `x86_64-cpu`. Raises `DefinitionError`."""
        for index in self._of(arch):
            return index.archs[arch][0]
        raise _featureless(arch)

    def names(self, arch: str) -> Iterator[str]:
        """The name of every model of `arch`."""
        return (name for index in self._of(arch) for name in index.models(arch))

    def catalogue(self, arch: str, case_sensitive: bool) -> Catalogue:
        """The models of `arch`.

        Raises `DefinitionError` if no folder has its features or two have a model of one name.
        """
        from cpufw.definitions.compiled import build_catalogue, feature_table

        for entries in filter(None, (index.features(arch) for index in self._of(arch))):
            layers = [index.models(arch) for index in self._of(arch)]
            return build_catalogue(feature_table(arch, entries), layers, case_sensitive)
        raise _featureless(arch)

    def _of(self, arch: str) -> Iterator[Index]:
        return (index for index in self.indexes.values() if arch in index.archs)

    def compiled(self) -> dict[str, CompiledArch]:
        """All of them as one, in the compiled form."""
        from cpufw.definitions.compiled import CompiledArch

        merged: dict[str, CompiledArch] = {}
        for index in self.indexes.values():
            for name, arch in index.compiled().items():
                whole = merged.setdefault(name, CompiledArch(name, arch.suffix, arch.model_kind))
                whole.features = whole.features or arch.features
                whole.models = {**whole.models, **arch.models}
        return merged


def _featureless(arch: str) -> DefinitionError:
    return DefinitionError([f"no definitions give the features of {arch}"])
