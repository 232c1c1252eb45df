import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from .definitions import (
    CPUDEFS,
    DOCUMENTS,
    FEATURES,
    MODEL_FILES,
    VERSIONS,
    Version,
    load,
    places,
)

SCHEMAS = {
    path: json.loads(path.read_text()) for path in sorted((CPUDEFS / "schema").glob("*.json"))
}
YAML_FILES = sorted(CPUDEFS.rglob("*.yaml"))
MODEL_SCHEMA = Draft202012Validator(SCHEMAS[CPUDEFS / "schema" / "x86-model.schema.json"])
ORDER = {name: rank for rank, name in enumerate(FEATURES)}


def relative(path: Path) -> str:
    return str(path.relative_to(CPUDEFS))


def version_name(version: Version) -> str:
    return version.name


def missing(features: frozenset[str]) -> list[str]:
    return sorted(
        f"{name} requires {needed}"
        for name in features
        for needed in FEATURES[name].get("requires", [])
        if needed not in features
    )


# --- the schemas -------------------------------------------------------------------------


def object_schemas(schema: Any, where: str = "$") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of a schema that describes an object's properties."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield where, schema
        for key, part in schema.items():
            yield from object_schemas(part, f"{where}.{key}")
    elif isinstance(schema, list):
        for position, part in enumerate(schema):
            yield from object_schemas(part, f"{where}[{position}]")


@pytest.mark.parametrize("path", SCHEMAS, ids=relative)
def test_schema_is_a_valid_one(path: Path) -> None:
    Draft202012Validator.check_schema(SCHEMAS[path])


@pytest.mark.parametrize("name", ["features", "x86-model"])
def test_schema_lets_no_unknown_key_pass_and_describes_the_known_ones(name: str) -> None:
    schema = SCHEMAS[CPUDEFS / "schema" / f"{name}.schema.json"]
    for where, part in object_schemas(schema):
        assert "additionalProperties" in part, f"{where} lets unknown keys pass"
        for key, value in part.get("properties", {}).items():
            assert value.get("description"), f"{where}: {key} has no description"


@pytest.mark.parametrize("path", YAML_FILES, ids=relative)
def test_file_is_claimed_by_one_schema_and_follows_it(path: Path) -> None:
    document = load(path)
    claims = [
        place
        for place, schema in SCHEMAS.items()
        if schema["properties"]["kind"]["const"] == document["kind"]
    ]
    assert len(claims) == 1, f"{path.name}: {len(claims)} schemas claim kind {document['kind']}"
    errors = [
        f"{error.json_path}: {error.message}"
        for error in Draft202012Validator(SCHEMAS[claims[0]]).iter_errors(document)
    ]
    assert not errors
    header = path.read_text().splitlines()[0]
    mark = "# yaml-language-server: $schema="
    assert header.startswith(mark), f"{path.name} does not name its schema to editors"
    assert (path.parent / header.removeprefix(mark)).resolve() == claims[0].resolve()


@pytest.mark.parametrize("path", [CPUDEFS / "x86" / "features.yaml", *MODEL_FILES], ids=relative)
def test_lines_fit_in_100_columns(path: Path) -> None:
    assert [line for line in path.read_text().splitlines() if len(line) > 100] == []


MINE = {"kind": "x86-model", "name": "Mine", "description": "our fleet", "base": "Haswell-v4"}


def test_a_users_model_may_start_from_another_one() -> None:
    own = MINE | {"add": ["aes"], "remove": ["pcid"], "stepping": 3}
    assert list(MODEL_SCHEMA.iter_errors(own)) == []
    along = MINE | {"with": {"vmx": {"add": ["vmx-pml"]}}}
    assert list(MODEL_SCHEMA.iter_errors(along)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"vendor": "Intel"}, "'Intel' does not match"),
        ({"family": 271}, "271 is greater than the maximum"),
        ({"stepping": 16}, "16 is greater than the maximum"),
        ({"model": -1}, "-1 is less than the minimum"),
        ({"xlevel": 5}, "5 is not valid"),
        ({"phys-bits": 64}, "64 is greater than the maximum"),
        ({"model-id": "x" * 49}, "is too long"),
        ({"name": "Mine-v2"}, "Mine-v2"),
        ({"colour": "red"}, "'colour' was unexpected"),
        ({"features": ["aes"]}, "does not allow"),
        ({"add": ["aes", "aes"]}, "non-unique"),
        ({"add": ["AES"]}, "'AES' does not match"),
        ({"with": {"vmx": ["vmx-pml"]}}, "is not of type 'object'"),
        ({"versions": [{"version": 2}]}, "1 was expected"),
        ({"versions": [{"version": 1, "add": ["aes"]}]}, "'add' was unexpected"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_schema_rejects(change: dict[str, Any], told: str) -> None:
    messages = [error.message for error in MODEL_SCHEMA.iter_errors(MINE | change)]
    assert any(told in message for message in messages), messages


def test_a_model_without_a_base_must_say_what_it_is() -> None:
    bare = {key: value for key, value in MINE.items() if key != "base"}
    told = " ".join(error.message for error in MODEL_SCHEMA.iter_errors(bare))
    for key in ("source", "vendor", "family", "model", "stepping", "level", "xlevel", "features"):
        assert f"'{key}' is a required property" in told


def test_max_and_host_carry_no_identity() -> None:
    named = DOCUMENTS["max"] | {"family": 6}
    assert list(MODEL_SCHEMA.iter_errors(DOCUMENTS["max"])) == []
    assert list(MODEL_SCHEMA.iter_errors(named)) != []


# --- features ----------------------------------------------------------------------------


def test_no_two_features_share_a_bit() -> None:
    count = Counter(place for feature in FEATURES.values() for place in places(feature))
    assert [place for place, owners in count.items() if owners > 1] == []


def test_each_feature_is_written_once_and_explained_in_its_own_words() -> None:
    entries = load(CPUDEFS / "x86" / "features.yaml")["features"]
    assert len(entries) == len(FEATURES)
    count = Counter(feature["description"] for feature in entries)
    assert [text for text, uses in count.items() if uses > 1] == []
    for feature in entries:
        assert feature["description"].lower() != feature["name"]
        assert feature["source"].strip()


def test_a_name_for_a_feature_means_one_feature() -> None:
    names = Counter(list(FEATURES))
    for feature in FEATURES.values():
        names.update(feature.get("aliases", {}).get("qemu", []))
    assert [name for name, uses in names.items() if uses > 1] == []


def test_what_a_feature_requires_exists_and_never_leads_back_to_it() -> None:
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name in FEATURES, f"{path[-1]} requires {name}, which does not exist"
        assert name not in path, f"{' → '.join([*path, name])} is a circle"
        if name not in done:
            for needed in FEATURES[name].get("requires", []):
                walk(needed, (*path, name))
            done.add(name)

    for name in FEATURES:
        walk(name, ())


def test_vmx_controls_all_require_vmx() -> None:
    controls = [feature for name, feature in FEATURES.items() if name.startswith("vmx-")]
    assert controls
    assert [f["name"] for f in controls if "vmx" not in f.get("requires", [])] == []


# --- models ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODEL_FILES, ids=relative)
def test_model_is_named_like_its_file(path: Path) -> None:
    assert load(path)["name"] == path.stem


def test_a_name_for_a_model_means_one_version() -> None:
    names = Counter(list(DOCUMENTS))
    names.update(version.name for version in VERSIONS)
    names.update(version.alias for version in VERSIONS if version.alias)
    assert [name for name, uses in names.items() if uses > 1] == []


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=lambda document: document["name"])
def test_versions_count_up_and_change_what_is_there(document: dict[str, Any]) -> None:
    numbers = [delta["version"] for delta in document.get("versions", [])]
    assert numbers == sorted(set(numbers))
    first = set(document.get("features", []))
    along = set(document.get("with", {}).get("vmx", []))
    for delta in document.get("versions", []):
        vmx = delta.get("with", {}).get("vmx", {})
        assert first.isdisjoint(delta.get("add", []))
        assert first.issuperset(delta.get("remove", []))
        assert along.isdisjoint(vmx.get("add", []))
        assert along.issuperset(vmx.get("remove", []))


def feature_lists(document: dict[str, Any]) -> Iterator[list[str]]:
    yield document.get("features", [])
    yield document.get("with", {}).get("vmx", [])
    for delta in document.get("versions", []):
        for part in (delta, delta.get("with", {}).get("vmx", {})):
            yield part.get("add", [])
            yield part.get("remove", [])


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=lambda document: document["name"])
def test_features_of_a_model_exist_and_keep_the_order_of_the_table(
    document: dict[str, Any],
) -> None:
    for names in feature_lists(document):
        assert [name for name in names if name not in FEATURES] == []
        assert names == sorted(names, key=ORDER.__getitem__)
        assert "hypervisor" not in names, "every named model gets hypervisor without listing it"


@pytest.mark.parametrize("version", VERSIONS, ids=version_name)
def test_version_has_everything_that_its_features_require(version: Version) -> None:
    assert missing(version.features) == []


@pytest.mark.parametrize("version", VERSIONS, ids=version_name)
def test_version_with_vmx_on_has_everything_that_its_features_require(version: Version) -> None:
    assert missing(version.features | {"vmx"} | version.vmx) == []


@pytest.mark.parametrize("version", VERSIONS, ids=version_name)
def test_features_of_a_version_are_its_vendors(version: Version) -> None:
    vendor = version.value("vendor")
    foreign = [
        name for name in version.features if vendor not in FEATURES[name].get("vendors", [vendor])
    ]
    assert foreign == []


@pytest.mark.parametrize("version", VERSIONS, ids=version_name)
def test_cache_sizes_are_the_product_of_their_parts(version: Version) -> None:
    for cache in version.value("caches", []):
        parts = cache["line-size"] * cache["associativity"] * cache["partitions"] * cache["sets"]
        assert cache["size"] == parts
