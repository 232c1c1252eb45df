"""The x86 definitions read straight from YAML, so that these tests depend on no loader."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CPUDEFS = ROOT / "cpudefs"
MODEL_FILES = sorted((CPUDEFS / "x86" / "models").glob("*.yaml"))


def load(path: Path) -> Any:
    """The document of one YAML file."""
    return YAML(typ="safe").load(path)


def places(feature: dict[str, Any]) -> list[str]:
    """Where a feature's bits are, as `word:bit`."""
    place = feature["place"]
    return [place] if isinstance(place, str) else place


@dataclass(frozen=True)
class Version:
    """One model version written out; `vmx` is what comes along when vmx is turned on."""

    name: str
    alias: str | None
    document: dict[str, Any]
    delta: dict[str, Any]
    features: frozenset[str]
    vmx: frozenset[str]

    def value(self, key: str, default: Any = None) -> Any:
        """An identity key or the caches, from this version or the top of its file."""
        return self.delta.get(key, self.document.get(key, default))


def versions_of(document: dict[str, Any]) -> Iterator[Version]:
    """Every version that a model file defines; none for base, max and host."""
    for delta in document.get("versions", []):
        vmx = set(document.get("with", {}).get("vmx", []))
        changed = delta.get("with", {}).get("vmx", {})
        yield Version(
            f"{document['name']}-v{delta['version']}",
            delta.get("alias"),
            document,
            delta,
            frozenset(
                set(document["features"]) - set(delta.get("remove", [])) | set(delta.get("add", []))
            ),
            frozenset(vmx - set(changed.get("remove", [])) | set(changed.get("add", []))),
        )


FEATURES: dict[str, dict[str, Any]] = {
    feature["name"]: feature for feature in load(CPUDEFS / "x86" / "features.yaml")["features"]
}
DOCUMENTS: dict[str, dict[str, Any]] = {path.stem: load(path) for path in MODEL_FILES}
VERSIONS = [version for document in DOCUMENTS.values() for version in versions_of(document)]
