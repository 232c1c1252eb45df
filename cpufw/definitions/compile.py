"""The third layer of checks, and the compiled form: features and models of one folder.

The compiled form is plain data (see `index.py` for how it is kept): for each architecture its
features in order, and one record a model name, versions and aliases written out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cpufw.core.features import FeatureSet, FeatureTable
from cpufw.definitions.compiled import CompiledArch
from cpufw.definitions.delta import (
    GENERIC_KEYS,
    SAYS_NOTHING,
    Whole,
    changed_features,
    changed_record,
    check_requirements,
    feature_names,
    known_features,
    write_out,
)
from cpufw.definitions.document import Document, Problem, Step, read_document
from cpufw.definitions.features import compile_features, unknown
from cpufw.definitions.machine_checks import machine_problems
from cpufw.definitions.schema import schema_problems
from cpufw.errors import DefinitionError

_NEEDED = {
    "features": ("arch", "models", "features"),
    "machines": ("arch", "machines"),
    "model": ("name", "description"),
}


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
        models = [d for d in good if d.kind not in ("features", "machines")]
        for document in models:
            name = document.data["name"]
            if name in self.waiting:
                first = self.waiting[name].path
                self._report(document, f"model '{name}' is also defined in {first}", ["name"])
            else:
                self.waiting[name] = document
        for document in list(self.waiting.values()):
            self._model(document, ())
        for document in good:
            if document.kind == "machines":
                self._machines(document)
        return {
            name: arch
            for name, arch in self.archs.items()
            if arch.features or arch.models or arch.machines
        }

    def _machines(self, document: Document) -> None:
        arch = self.archs.get(document.data["arch"])
        if arch is None:
            if not self.features_rejected:
                message = unknown("architecture", document.data["arch"], self.archs)
                self._report(document, message, ["arch"])
            return
        base = self.base.get(arch.arch)
        models = {*arch.models, *(base.models if base is not None else ())}
        for message, where in machine_problems(document.data, arch.suffix, models, self.rejected):
            self._report(document, message, where)
        arch.machines.append(document.data)

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
        elif "base" in data:
            archs = self._having(document, archs, path) or archs[:1]
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
        data, table, report = document.data, self.tables[arch.arch], self._report
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
        identity.update({key: value for key, value in data.items() if key not in GENERIC_KEYS})
        features |= known_features(document, table, data.get("features", []), ["features"], report)
        features = changed_features(document, features, data, [], report)
        for trigger, names in data.get("with", {}).items():
            where: list[Step] = ["with", trigger]
            if trigger not in table:
                self._report(document, unknown("feature", trigger, feature_names(table)), where)
                continue
            if "base" in data:
                before = companions.get(trigger, table.empty)
                companions[trigger] = changed_features(document, before, names, where, report)
            else:
                companions[trigger] = known_features(document, table, names, where, report)
        origin = [key for key in ("features", "remove", "add", "base") if key in data]
        whole = (identity, features, companions)
        check_requirements(document, whole, origin[:1], report)
        shared = {
            "family": data["name"],
            "source": data.get("source", ""),
            "deprecated": data.get("deprecated", False),
            "dynamic": data.get("dynamic", False),
            "static": data.get("static", False),
        }
        if "members" in data:
            self._members(document, arch, whole, shared)
            return
        first = write_out(shared, data["description"], whole)
        versions = data.get("versions", [])
        first["alias_of"] = f"{data['name']}-v1" if versions else None
        self._add(document, arch, data["name"], first, ["name"])
        self._aliases(document, arch, data, first, [])
        for index, delta in enumerate(versions):
            self._version(document, arch, index, delta, whole, shared)

    def _aliases(
        self,
        document: Document,
        arch: CompiledArch,
        data: Mapping[str, Any],
        record: dict[str, Any],
        where: list[Step],
    ) -> None:
        for index, alias in enumerate(data.get("aliases", ())):
            named = {**record, "alias_of": data["name"]}
            self._add(document, arch, alias, named, [*where, "aliases", index])

    def _members(
        self,
        document: Document,
        arch: CompiledArch,
        family: Whole,
        shared: dict[str, Any],
    ) -> None:
        """Models with names of their own; the family they are deltas on is none itself."""
        for key in {"versions", "aliases"} & document.data.keys():
            self._report(document, f"a family with members has no {key} of its own", [key])
        for index, delta in enumerate(document.data["members"]):
            where: list[Step] = ["members", index]
            record = changed_record(document, delta, family, shared, where, self._report)
            self._add(document, arch, delta["name"], record, [*where, "name"])
            self._aliases(document, arch, delta, record, where)

    def _version(
        self,
        document: Document,
        arch: CompiledArch,
        index: int,
        delta: Mapping[str, Any],
        first: Whole,
        shared: dict[str, Any],
    ) -> None:
        data = document.data
        where: list[Step] = ["versions", index]
        number = delta["version"]
        if number != index + 1:
            message = f"version {number} stands where version {index + 1} is expected"
            self._report(document, message, [*where, "version"])
        if index == 0 and delta.keys() - SAYS_NOTHING:
            self._report(document, "version 1 is the model itself and changes nothing", where)
        record = changed_record(document, delta, first, shared, where, self._report)
        record["version"] = number
        name = f"{data['name']}-v{number}"
        self._add(document, arch, name, record, [*where, "version"])
        if "alias" in delta:
            alias = {**record, "alias_of": name, "version": None}
            self._add(document, arch, delta["alias"], alias, [*where, "alias"])

    def _base(
        self, document: Document, arch: CompiledArch, path: tuple[str, ...]
    ) -> dict[str, Any] | None:
        name: str = document.data["base"]
        parent = self._defining(name)
        if parent is not None and parent.data["name"] in path:
            circle = " -> ".join((*path, name))
            self._report(document, f"base goes round in a circle: {circle}", ["base"])
            return None
        if parent is not None:
            self._model(parent, path)
        known = self._known(arch)
        if name not in known:
            family = re.sub(r"-v[0-9]+\Z", "", name)
            if parent is not None and "members" in parent.data:
                members = ", ".join(member["name"] for member in parent.data["members"])
                message = f"'{name}' is a family: start from one of its members, {members}"
                self._report(document, message, ["base"])
            elif parent is None and not {name, family} & self.rejected:
                self._report(document, unknown("base model", name, known), ["base"])
            return None  # a parent that failed has been reported where it stands
        if known[name]["dynamic"]:
            message = f"'{name}' is what the accelerator makes of it: no model can start from it"
            self._report(document, message, ["base"])
            return None
        return known[name]

    def _having(
        self, document: Document, archs: list[CompiledArch], path: tuple[str, ...]
    ) -> list[CompiledArch]:
        """Those of `archs` that have the model that this document starts from."""
        name = document.data["base"]
        parent = self._defining(name)
        path = (*path, document.data["name"])
        if parent is not None and parent.data["name"] not in path:
            self._model(parent, path)
        return [arch for arch in archs if name in self._known(arch)]

    def _known(self, arch: CompiledArch) -> dict[str, dict[str, Any]]:
        base = self.base.get(arch.arch)
        return {**(base.models if base is not None else {}), **arch.models}

    def _defining(self, name: str) -> Document | None:
        """The document here that will define `name`: a family, a version, a member, an alias."""
        for family, document in self.waiting.items():
            versions = document.data.get("versions", ())
            members = document.data.get("members", ())
            names = {version.get("alias") for version in versions}
            names |= {f"{family}-v{version['version']}" for version in versions}
            names |= {member["name"] for member in members}
            for named in (document.data, *members):
                names |= set(named.get("aliases", ()))
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
