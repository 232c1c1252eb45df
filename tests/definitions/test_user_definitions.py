"""Users' own models on top of the built-in ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cpufw.definitions.stamp import cache_folder, fresh_listing, user_folders
from cpufw.errors import CpufwError, DefinitionError, NotFoundError
from cpufw.framework import Framework

pytestmark = pytest.mark.usefixtures("framework")  # compiles the built-in definitions once


def write(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    head = ["kind: x86-model", f"name: {name}", f"description: {name} of this test"]
    (folder / f"{name}.yaml").write_text("\n".join([*head, *lines, ""]))
    return folder


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    folder = tmp_path / "fleet"
    write(folder, "Fleet", "base: Haswell-v4", "add: [pdpe1gb]", "remove: [pcid, invpcid]")
    return write(folder, "Fleet-old", "base: Fleet", "stepping: 9", "remove: [avx2]")


def test_a_user_s_model_starts_from_a_built_in_one(fleet: Path, framework: Framework) -> None:
    mine = Framework(definitions=[str(fleet)])
    base = set(framework.cpu_class("Haswell-v4-x86_64-cpu").model.features)
    fleet_features = (base | {"pdpe1gb"}) - {"pcid", "invpcid"}
    cpu = mine.cpu_class("Fleet-x86_64-cpu")()
    cpu.realize()
    assert set(cpu.granted) - {"hypervisor"} == fleet_features
    old = mine.cpu_class("Fleet-old-x86_64-cpu").model
    assert set(old.features) == fleet_features - {"avx2"}
    assert (old.identity["stepping"], old.identity["vendor"]) == (9, "GenuineIntel")
    assert "Fleet" not in framework.catalogue("x86_64")


def test_the_user_s_models_are_listed_with_the_others(
    fleet: Path, framework: Framework, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPUFW_CPUDEFS", str(fleet))
    listed = Framework().listing()
    assert [row["name"] for row in listed if row not in framework.listing()] == [
        "Fleet",
        "Fleet-old",
    ]
    # A fresh start gets the same without looking at a definition.
    assert fresh_listing(user_folders()) == listed
    write(fleet, "Fleet-old", "base: Fleet")
    assert fresh_listing(user_folders()) is None


def test_folders_come_from_the_call_the_environment_and_home(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = write(tmp_path / "env", "Env", "base: Fleet")  # from a folder before it
    home = write(tmp_path / "cpufw" / "cpudefs", "Home", "base: Env")
    monkeypatch.setenv("CPUFW_CPUDEFS", f"{environment}:{fleet}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    catalogue = Framework(definitions=[str(fleet)]).catalogue("x86_64")
    assert {"Fleet", "Env", "Home"} <= {model.name for model in catalogue}
    assert home.is_dir()
    plain = Framework(user=False).catalogue("x86_64")
    assert not {"Fleet", "Env", "Home"} & {model.name for model in plain}


@pytest.mark.parametrize(
    ("name", "lines", "expected"),
    [
        (
            "Mine",
            ["base: Haswel-v4"],
            "Mine.yaml:4:1: base model 'Haswel-v4' is not known",
        ),
        ("Mine", ["base: Haswell", "add: [avx3]"], "Mine.yaml:5:7: feature 'avx3' is not known"),
        ("Mine", ["base: Haswell", "remove: [avx]"], "Mine.yaml:5:1: "),
        ("Mine", ["base: Mine"], "Mine.yaml:4:1: base goes round in a circle: Mine -> Mine"),
        ("Mine", ["base: host"], "Mine.yaml:4:1: 'host' is what the accelerator makes of it"),
        ("Mine", ["base: Haswell", "stepping: 16"], "Mine.yaml:5:1: stepping: 16 is greater"),
        (
            "Mine",
            ["base: Haswell", "vendr: x"],
            "Mine.yaml:5:1: 'vendr' is not a key here",
        ),
        ("Haswell", ["base: Nehalem"], "Haswell.yaml:2:1: the name 'Haswell' is taken"),
        ("Mine", ["base: Haswell", "base: Nehalem"], "Mine.yaml:5:1: 'base' is here twice"),
    ],
)
def test_a_wrong_model_is_told_with_its_place_and_changes_nothing(
    tmp_path: Path, name: str, lines: list[str], expected: str
) -> None:
    folder = write(tmp_path / "mine", name, *lines)
    kept = Path(cache_folder())
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    with pytest.raises(DefinitionError) as caught:
        Framework(definitions=[str(folder)])
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"{folder}/{expected}"), first
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CpufwError, match=f"definition folder {tmp_path}/gone does not exist"):
        Framework(definitions=[str(tmp_path / "gone")])


def test_an_unknown_model_is_refused_with_the_nearest(framework: Framework) -> None:
    with pytest.raises(NotFoundError, match="'Hasswell' is not known; did you mean Haswell"):
        framework.find_model("Hasswell")
    with pytest.raises(NotFoundError, match="did you mean Haswell"):
        framework.cpu_class("haswell-x86_64-cpu")
    with pytest.raises(NotFoundError, match="'x86-64' is not known; did you mean x86_64"):
        framework.catalogue("x86-64")


def test_the_built_in_definitions_load_again_from_a_damaged_cache(
    tmp_path: Path, framework: Framework, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = shutil.copytree(cache_folder(), tmp_path / "cpufw")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for path in cache.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-9])
    assert fresh_listing(user_folders()) is None
    steps: list[tuple[int, int]] = []
    assert Framework(progress=lambda *step: steps.append(step)).listing() == framework.listing()
    assert steps
    steps.clear()
    assert Framework(progress=lambda *step: steps.append(step)).listing() == framework.listing()
    assert not steps
    assert fresh_listing(user_folders()) == framework.listing()


def test_a_cache_that_cannot_be_written_changes_nothing_but_time(
    tmp_path: Path, fleet: Path, framework: Framework, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    names = [row["name"] for row in Framework(definitions=[str(fleet)]).listing()]
    assert names == [row["name"] for row in framework.listing()] + ["Fleet", "Fleet-old"]
