"""Importing cpufw costs next to nothing; its names load what they need."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("pluggy", "ruamel", "jsonschema", "dataclasses", "cffi", "rich", "capstone", "inspect")


def loaded(code: str, whole: bool = False) -> set[str]:
    """The top-level modules that are loaded after `code`, or the `whole` names of all."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = done.stdout.splitlines()[-1].split()
    return set(names) if whole else {name.partition(".")[0] for name in names}


def test_importing_cpufw_imports_nothing_heavy() -> None:
    bare = loaded("")
    assert not (loaded("import cpufw") - bare) & set(HEAVY)


def test_naming_a_core_class_loads_no_plugin_and_no_yaml() -> None:
    modules = loaded("from cpufw import CPUState, FeatureSet, SlotState, CpufwError")
    assert not modules & {"pluggy", "ruamel", "jsonschema", "cffi", "rich", "cpufw_x86"}


@pytest.mark.usefixtures("framework")  # has compiled what a warm start finds
def test_a_warm_start_reads_no_yaml() -> None:
    modules = loaded("import cpufw\ncpufw.cpu_class('Haswell-x86_64-cpu')")
    assert not modules & {"ruamel", "jsonschema", "rich"}


@pytest.mark.usefixtures("framework")
@pytest.mark.parametrize("arguments", [["show", "Haswell-v4"], ["expand", "Haswell-v4"]])
def test_a_warm_command_imports_what_one_model_takes(arguments: list[str]) -> None:
    command = f"from cpufw.cli import main\nassert main({arguments}) == 0"
    loaded(command)  # its folders of imports may have no stamp yet
    modules = loaded(command)
    assert not modules & {"argparse", "email", "hashlib", "pluggy", "ruamel", "zipfile", "cffi"}
    with_dots = loaded(command, whole=True)
    assert not with_dots & {"cpufw.core.machine", "cpufw_x86.caches", "importlib.metadata"}


def test_every_public_name_is_there_and_no_other() -> None:
    import cpufw

    for name in dir(cpufw):
        assert getattr(cpufw, name) is not None
    with pytest.raises(AttributeError, match="module 'cpufw' has no attribute 'Frameworks'"):
        _ = cpufw.Frameworks
