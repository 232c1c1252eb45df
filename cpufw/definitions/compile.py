"""The third layer of checks, and the compiled form: features and models of one folder.

The compiled form is plain data (see `index.py` for how it is kept): for each architecture its
features in order, and one record a model name, versions and aliases written out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cpufw.core.features import FeatureSet, FeatureTable
from cpufw.definitions.compiled import CompiledArch
from cpufw.definitions.document import Document, Problem, Step, read_document
from cpufw.definitions.features import compile_features, unknown
from cpufw.definitions.schema import schema_problems
from cpufw.errors import DefinitionError

# What every kind of model shares; all other keys are the architecture's identity values.
_GENERIC = {
    "kind", "name", "description", "source", "deprecated", "dynamic", "static", "arch",
    "features", "with", "versions", "base", "add", "remove", "version", "alias", "aliases",
}  # fmt: skip

_NEEDED = {"features": ("arch", "models", "features"), "model": ("name", "description")}


def definition_files(folder: Path) -> list[Path]:
    """Every YAML file under `folder`, in name order."""
    return sorted(path for path in folder.rglob("*.yaml") if path.is_file())


def compile_folder(
    folder: Path,
    schemas: Sequence[Path],
    base: Mapping[str, CompiledArch] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, CompiledArch]:
    """Compile every definition under `folder`; what it adds, by architecture.

    `base` are the definitions that models may start from with `base:`. `progress` is told how
    many files of how many are read. Raises `DefinitionError` with every problem found.
    """
    files = definition_files(folder)
    documents = []
    for done, path in enumerate(files):
        if progress:
            progress(done, len(files))
        documents.append(read_document(path))
    if progress:
        progress(len(files), len(files))
    compiler = _Compiler(documents, schemas, dict(base or {}))
    compiled = compiler.run()
    if compiler.problems:
        raise DefinitionError(sorted(set(compiler.problems)))
    return compiled


def problems_of(
    files: Sequence[Path], schemas: Sequence[Path], base: Mapping[str, CompiledArch]
) -> list[Problem]:
    """Every problem in these definition files, in file order."""
    compiler = _Compiler([read_document(path) for path in files], schemas, dict(base))
    compiler.run()
    return sorted(set(compiler.problems))


class _Compiler:
    def __init__(
        self,
        documents: list[Document],
        schemas: Sequence[Path],
        base: dict[str, CompiledArch],
    ) -> None:
        self.documents, self.schemas, self.base = documents, schemas, base
        self.problems: list[Problem] = []
        self.archs: dict[str, CompiledArch] = {}
        self.tables: dict[str, FeatureTable] = {}
        self.waiting: dict[str, Document] = {}
        self.done: set[Path] = set()
        # What documents with problems meant to define: not to be reported as unknown as well.
        self.rejected: set[str] = set()
        self.features_rejected = False

    def run(self) -> dict[str, CompiledArch]:
        good = []
        for document in self.documents:
            found = list(document.problems)
            if document.data is not None:
                found.extend(self._shape_problems(document))
            self.problems.extend(found)
            if not found:
                good.append(document)
            elif document.kind in ("features", ""):  # what cannot be read may be one as well
                self.features_rejected = True
            elif isinstance(document.data, dict):
                self.rejected.add(str(document.data.get("name")))
        for document in good:
            if document.kind == "features":
                self._features(document)
        for name, compiled in self.base.items():
            if name not in self.archs:
                self.archs[name] = CompiledArch(name, compiled.suffix, compiled.model_kind)
                self.tables[name] = compiled.table()
        models = [document for document in good if document.kind != "features"]
        for document in models:
            name = document.data["name"]
            if name in self.waiting:
                first = self.waiting[name].path
                self._report(document, f"model '{name}' is also defined in {first}", ["name"])
            else:
                self.waiting[name] = document
        for document in list(self.waiting.values()):
            self._model(document, ())
        return {name: arch for name, arch in self.archs.items() if arch.features or arch.models}

    def _shape_problems(self, document: Document) -> list[Problem]:
        try:
            found = list(schema_problems(document, self.schemas))
        except DefinitionError as error:  # the schema itself is broken
            return [problem for problem in error.problems if isinstance(problem, Problem)]
        # A plugin's own schema may be laxer than what is built from its documents.
        needed = _NEEDED.get(document.kind, _NEEDED["model"])
        if not found:
            missing = [key for key in needed if key not in document.data]
            found = [document.problem(f"{document.kind}: '{key}' is missing") for key in missing]
        return found

    def _report(self, document: Document, message: str, where: Sequence[Step]) -> None:
        self.problems.append(document.problem(message, where))

    # --- features ------------------------------------------------------------------------

    def _features(self, document: Document) -> None:
        names = document.data["arch"]
        for name in [names] if isinstance(names, str) else names:
            if name in self.archs or name in self.base:
                self._report(document, f"the features of {name} are defined already", ["arch"])
            else:
                self.archs[name], self.tables[name] = compile_features(document, name, self._report)

    # --- models --------------------------------------------------------------------------

    def _model(self, document: Document, path: tuple[str, ...]) -> None:
        data = document.data
        if document.path in self.done:
            return
        self.done.add(document.path)
        archs = [arch for arch in self.archs.values() if arch.model_kind == document.kind]
        wanted = data.get("arch")
        if wanted is not None:
            names = [wanted] if isinstance(wanted, str) else wanted
            archs = [arch for arch in archs if arch.arch in names]
        if not archs and not self.features_rejected:
            self._report(
                document, f"no architecture's models are of kind {document.kind}", ["kind"]
            )
        if document.path.stem != data["name"]:
            message = f"model '{data['name']}' must be in a file of that name"
            self._report(document, message, ["name"])
        for arch in archs:
            self._model_of(document, arch, (*path, data["name"]))

    def _model_of(self, document: Document, arch: CompiledArch, path: tuple[str, ...]) -> None:
        data, table = document.data, self.tables[arch.arch]
        identity: dict[str, Any] = {}
        features = table.empty
        companions: dict[str, FeatureSet] = {}
        if "base" in data:
            record = self._base(document, arch, path)
            if record is None:
                return
            identity = dict(record["identity"])
            features = table.set(record["features"].split())
            gone = table.set(name for name in data.get("remove", ()) if name in table)
            for trigger, names in record["companions"].items():
                # What came along goes with what it requires, but a trigger may still be turned on.
                kept = table.set(names.split()).without(gone - table.set([trigger]))
                companions[trigger] = kept
        identity.update({key: value for key, value in data.items() if key not in _GENERIC})
        features |= self._names(document, table, data.get("features", []), ["features"])
        features = self._delta(document, table, features, data, [])
        for trigger, names in data.get("with", {}).items():
            where: list[Step] = ["with", trigger]
            if trigger not in table:
                self._report(document, unknown("feature", trigger, _all(table)), where)
                continue
            if "base" in data:
                before = companions.get(trigger, table.empty)
                companions[trigger] = self._delta(document, table, before, names, where)
            else:
                companions[trigger] = self._names(document, table, names, where)
        origin = [key for key in ("features", "remove", "add", "base") if key in data]
        self._closed(document, table, features, companions, origin[:1])
        shared = {
            "family": data["name"],
            "source": data.get("source", ""),
            "deprecated": data.get("deprecated", False),
            "dynamic": data.get("dynamic", False),
            "static": data.get("static", False),
        }
        first = _record(shared, data["description"], identity, features, companions)
        versions = data.get("versions", [])
        first["alias_of"] = f"{data['name']}-v1" if versions else None
        self._add(document, arch, data["name"], first, ["name"])
        for index, alias in enumerate(data.get("aliases", ())):
            record = {**first, "alias_of": data["name"]}
            self._add(document, arch, alias, record, ["aliases", index])
        for index, delta in enumerate(versions):
            self._version(document, arch, index, delta, (identity, features, companions), shared)

    def _version(
        self,
        document: Document,
        arch: CompiledArch,
        index: int,
        delta: Mapping[str, Any],
        first: tuple[dict[str, Any], FeatureSet, dict[str, FeatureSet]],
        shared: dict[str, Any],
    ) -> None:
        data, table = document.data, self.tables[arch.arch]
        where: list[Step] = ["versions", index]
        number = delta["version"]
        if number != index + 1:
            message = f"version {number} stands where version {index + 1} is expected"
            self._report(document, message, [*where, "version"])
        identity, features, companions = first
        changes = {key: value for key, value in delta.items() if key not in _GENERIC}
        if index == 0 and (changes or {"add", "remove", "with"} & delta.keys()):
            self._report(document, "version 1 is the model itself and changes nothing", where)
        for key, value in changes.items():
            if identity.get(key) == value:
                message = f"{key} is {value} already in version 1"
                self._report(document, message, [*where, key])
        features = self._delta(document, table, features, delta, where)
        companions = dict(companions)
        for trigger, change in delta.get("with", {}).items():
            place = [*where, "with", trigger]
            if trigger not in companions:
                self._report(document, f"version 1 has nothing that comes with {trigger}", place)
                continue
            companions[trigger] = self._delta(document, table, companions[trigger], change, place)
        self._closed(document, table, features, companions, where)
        note = delta.get("description", "")
        description = data["description"] + (f"; {note}" if note else "")
        record = _record(shared, description, {**identity, **changes}, features, companions)
        record["version"] = number
        record["deprecated"] = shared["deprecated"] or delta.get("deprecated", False)
        name = f"{data['name']}-v{number}"
        self._add(document, arch, name, record, [*where, "version"])
        if "alias" in delta:
            alias = {**record, "alias_of": name, "version": None}
            self._add(document, arch, delta["alias"], alias, [*where, "alias"])

    def _base(
        self, document: Document, arch: CompiledArch, path: tuple[str, ...]
    ) -> dict[str, Any] | None:
        name: str = document.data["base"]
        base = self.base.get(arch.arch)
        parent = self._defining(name)
        if parent is not None and parent.data["name"] in path:
            circle = " -> ".join((*path, name))
            self._report(document, f"base goes round in a circle: {circle}", ["base"])
            return None
        if parent is not None:
            self._model(parent, path)
        known = {**(base.models if base is not None else {}), **arch.models}
        if name not in known:
            family = re.sub(r"-v[0-9]+\Z", "", name)
            if parent is None and not {name, family} & self.rejected:
                self._report(document, unknown("base model", name, known), ["base"])
            return None  # a parent that failed has been reported where it stands
        if known[name]["dynamic"]:
            message = f"'{name}' is what the accelerator makes of it: no model can start from it"
            self._report(document, message, ["base"])
            return None
        return known[name]

    def _defining(self, name: str) -> Document | None:
        """The document here that will define `name`: a family, a version, or an alias."""
        for family, document in self.waiting.items():
            versions = document.data.get("versions", ())
            names = {version.get("alias") for version in versions}
            names |= set(document.data.get("aliases", ()))
            names |= {f"{family}-v{version['version']}" for version in versions}
            if name == family or name in names:
                return document
        return None

    def _add(
        self,
        document: Document,
        arch: CompiledArch,
        name: str,
        record: dict[str, Any],
        where: Sequence[Step],
    ) -> None:
        base = self.base.get(arch.arch)
        if name in arch.models or (base is not None and name in base.models):
            self._report(document, f"the name '{name}' is taken by another model", where)
        else:
            arch.models[name] = record

    def _names(
        self,
        document: Document,
        table: FeatureTable,
        names: Sequence[str],
        where: Sequence[Step],
    ) -> FeatureSet:
        good = []
        for index, name in enumerate(names):
            if name in table:
                good.append(name)
            else:
                message = unknown("feature", name, _all(table))
                self._report(document, message, [*where, index])
        return table.set(good)

    def _delta(
        self,
        document: Document,
        table: FeatureTable,
        features: FeatureSet,
        delta: Mapping[str, Any],
        where: Sequence[Step],
    ) -> FeatureSet:
        added = self._names(document, table, delta.get("add", ()), [*where, "add"])
        removed = self._names(document, table, delta.get("remove", ()), [*where, "remove"])
        for index, name in enumerate(delta.get("add", ())):
            if name in features:
                place = [*where, "add", index]
                self._report(document, f"cannot add {name}: it is there already", place)
        for index, name in enumerate(delta.get("remove", ())):
            if name in table and name not in features:
                place = [*where, "remove", index]
                self._report(document, f"cannot remove {name}: it is not there", place)
        return (features | added) - removed

    def _closed(
        self,
        document: Document,
        table: FeatureTable,
        features: FeatureSet,
        companions: Mapping[str, FeatureSet],
        where: Sequence[Step],
    ) -> None:
        for name, missing in features.unmet().items():
            self._report(document, f"{name} requires {', '.join(missing)}", where)
        for trigger, extra in companions.items():
            whole = features | table.set([trigger]) | extra
            for name, missing in whole.unmet().items():
                if name in extra:
                    message = f"{name} (with {trigger}) requires {', '.join(missing)}"
                    self._report(document, message, where)


def _record(
    shared: dict[str, Any],
    description: str,
    identity: dict[str, Any],
    features: FeatureSet,
    companions: Mapping[str, FeatureSet],
) -> dict[str, Any]:
    return {
        **shared,
        "version": None,
        "alias_of": None,
        "description": description,
        "identity": identity,
        "features": " ".join(features),
        "companions": {trigger: " ".join(names) for trigger, names in companions.items()},
    }


def _all(table: FeatureTable) -> Iterator[str]:
    return (feature.name for feature in table)
