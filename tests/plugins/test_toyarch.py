"""An architecture of someone else's: built, installed, found, used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cpufw import hookspecs
from cpufw.definitions.stamp import cache_folder

TOY = Path(__file__).parent / "toyarch"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin's wheel, built as its author would."""
    place = tmp_path_factory.mktemp("toy")
    source = shutil.copytree(TOY, place / "source", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", str(place), str(source)], check=True
    )
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, framework: object) -> Path:
    """A folder with the plugin installed in it, and a cache of its own."""
    assert framework is not None  # the built-in definitions are compiled once for all tests
    target = wheel.parent / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True)
    shutil.copytree(cache_folder(), wheel.parent / "cache" / "cpufw")
    return target


def python(installed: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where the plugin is installed, or where it is not."""
    environment = dict(os.environ)
    if installed is not None:
        environment["XDG_CACHE_HOME"] = str(installed.parent / "cache")
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(installed), *filter(None, [environment.get("PYTHONPATH")])]
        )
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def cpufw(installed: Path | None, *arguments: str) -> str:
    done = python(installed, "-m", "cpufw", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def program(installed: Path, text: str) -> Any:
    """What the program `text` leaves in `result`."""
    head = "import json, cpufw\nfrom cpufw.errors import CpufwError\n"
    done = python(installed, "-c", f"{head}{text}\nprint(json.dumps(result))")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_wheel_carries_its_definitions(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "cpufw_toy/definitions/toy/features.yaml",
        "cpufw_toy/definitions/toy/models/mini.yaml",
        "cpufw_toy/definitions/schema/toy-model.schema.json",
    } <= names


def test_it_is_listed_with_its_version_and_every_hook(installed: Path) -> None:
    plugins = {row["name"]: row for row in json.loads(cpufw(installed, "plugins", "--format=json"))}
    hooks = sorted(name for name in vars(hookspecs) if name.startswith("cpufw_"))
    assert plugins["toy"] == {
        "name": "toy",
        "distribution": "cpufw-toy",
        "version": "1.2.3",
        "hooks": hooks,
        "error": None,
    }
    assert plugins["x86"]["error"] is None
    without = json.loads(cpufw(None, "plugins", "--format=json"))
    assert [row["name"] for row in without] == ["arm", "ppc", "s390x", "x86"]


def test_its_models_are_listed_and_gone_when_it_is(installed: Path) -> None:
    for _ in range(2):  # compiled the first time, from the cache the second
        rows = json.loads(cpufw(installed, "list-models", "--arch=toy", "--format=json"))
        assert [(row["name"], row["type"], row["alias_of"]) for row in rows] == [
            ("maxi", "maxi-toy-cpu", None),
            ("mini", "mini-toy-cpu", "mini-v1"),
            ("mini-v1", "mini-v1-toy-cpu", None),
            ("mini-v2", "mini-v2-toy-cpu", None),
            ("mini-hands", "mini-hands-toy-cpu", "mini-v2"),
            ("midi", "midi-toy-cpu", None),
        ]
    assert "maxi" not in cpufw(None, "list-models", "--format=names").split()
    assert "Haswell" in cpufw(installed, "list-models", "--format=names").split()


def test_its_command_is_a_subcommand(installed: Path) -> None:
    assert cpufw(installed, "tick", "--times", "2") == "tick tick \n"
    refused = python(None, "-m", "cpufw", "tick")
    assert refused.returncode == 2
    assert "tick" in refused.stderr


def test_its_format_goes_out_and_comes_in(installed: Path, tmp_path: Path) -> None:
    assert "badge" in cpufw(installed, "export", "--list")
    exported = python(installed, "-m", "cpufw", "export", "mini,+hands", "--to", "badge")
    assert exported.stdout == "<<mini>> spring, wheels, hands\n"
    assert "badge cannot express teeth=8" in exported.stderr
    badge = tmp_path / "badge"
    badge.write_text(exported.stdout)
    assert cpufw(installed, "import", str(badge)) == "mini,+hands\n"
    assert "badge" not in cpufw(None, "export", "--list")


def test_its_class_is_a_cpu_type_like_any(installed: Path) -> None:
    result = program(
        installed,
        """
Mini = cpufw.cpu_class("mini-v2-toy-cpu")
mini = Mini(hands=False, teeth="0x10")
mini.realize()
Midi = cpufw.cpu_class("midi-toy-cpu")
result = {
    "is": [issubclass(Mini, cpufw.CPUState), isinstance(Mini, cpufw.CPUClass)],
    "arch": Mini.arch, "default": Mini.properties["teeth"].default,
    "granted": list(mini.granted), "status": mini.status, "teeth": mini.get("teeth"),
    "midi": [list(Midi.model.features), Midi.model.identity],
    "models": [model.name for model in cpufw.models("toy")],
}
""",
    )
    assert result == {
        "is": [True, True],
        "arch": "toy",
        "default": 10,
        "granted": ["spring", "wheels"],
        "status": 0b0011,
        "teeth": 16,
        "midi": [["spring", "wheels", "alarm"], {"teeth": 10}],
        "models": ["maxi", "mini", "mini-v1", "mini-v2", "mini-hands", "midi"],
    }


def test_it_is_plugged_and_unplugged_and_its_observers_see_it(installed: Path) -> None:
    result = program(
        installed,
        """
import cpufw_toy.plugin as toy
with cpufw.Machine("none", cpu="mini", smp="1,maxcpus=16,sockets=8") as machine:
    cpu = machine.device_add("mini-toy-cpu", id="toy1", socket_id=2, core_id=1)
    path, arch_id = cpu.path, cpu.arch_id
    shown = machine.resolve("topology/socket[2]/core[1]").get("cpu")
    machine.device_del("toy1")
    left = machine.resolve("topology/socket[2]/core[1]").get("cpu")
    try:
        machine.device_add("mini-toy-cpu", id="toy2", socket_id=7, core_id=0)
    except CpufwError as error:
        vetoed = str(error)
    result = {
        "path": path, "arch_id": arch_id, "shown": shown, "left": left, "vetoed": vetoed,
        "events": [[event.slot, event.kind.value] for event in toy.seen_events],
        "log": [[event.slot, event.kind.value] for event in machine.events(timeout=0)],
        "realized": [cpu.device_id for cpu in toy.seen_cpus],
    }
""",
    )
    assert result["path"] == result["shown"] == "/machine/peripheral/toy1"
    assert (result["arch_id"], result["left"]) == (2001, "")
    assert "plugin toy vetoes: this socket is reserved" in result["vetoed"]
    assert (
        result["events"]
        == result["log"]
        == [
            [0, "plugging"],
            [0, "present"],
            [5, "plugging"],
            [5, "present"],
            [5, "unplug-requested"],
            [5, "ejecting"],
            [5, "unplugged"],
        ]
    )
    assert result["realized"] == ["", "toy1"]


def test_architectures_do_not_mix_in_a_machine(installed: Path) -> None:
    result = program(
        installed,
        """
result = []
with cpufw.Machine("none", cpu="Haswell", smp="1,maxcpus=2") as machine:
    before = [slot.state for slot in machine.slots]
    for attempt in (
        lambda: machine.device_add("mini-toy-cpu", id="x", socket_id=0, core_id=1, thread_id=0),
        lambda: cpufw.cpu_class("mini-toy-cpu")(socket_id=0, core_id=1).realize(machine),
        lambda: cpufw.cpu_class("mini-toy-cpu")(avx2=True),
        lambda: cpufw.cpu_class("mini-x86_64-cpu"),
    ):
        try:
            attempt()
        except CpufwError as error:
            result.append(str(error))
    assert [slot.state for slot in machine.slots] == before
""",
    )
    refused = "mini-toy-cpu cannot be plugged: this machine's CPUs are Haswell-x86_64-cpu"
    assert result[:2] == [refused, refused]
    assert result[2] == "property of mini-toy-cpu 'avx2' is not known"
    assert result[3].startswith("CPU type 'mini-x86_64-cpu' is not known; did you mean ")


def test_its_machine_type_and_accelerators_are_there(installed: Path) -> None:
    result = program(
        installed,
        """
with cpufw.Machine("toy-bench", cpu="maxi", smp="2", accel="steam:clockwork") as machine:
    cpu = machine.cpus()[1]
    result = {
        "accelerator": machine.accelerator_name, "type": machine.machine_type.name,
        "unavailable": list(cpu.unavailable), "warnings": list(cpu.warnings),
    }
for options in ({"accel": "steam"}, {"accel": "kvm"}, {"cpu": "Haswell"}, {"smp": "17"}):
    try:
        cpufw.Machine("toy-bench", **{"accel": "clockwork", **options})
    except CpufwError as error:
        result[next(iter(options))] = result.get(next(iter(options)), "") + str(error) + ". "
""",
    )
    assert result["accelerator"] == "clockwork"
    assert result["type"] == "toy-bench-1.0"
    assert result["unavailable"] == ["alarm"]
    assert result["warnings"] == ["maxi: clockwork does not grant alarm (status:3)"]
    assert result["accel"].startswith("steam: there is no boiler on this host. ")
    assert "kvm does not run toy guests" in result["accel"]
    assert "CPU model 'Haswell' is not known" in result["cpu"]
    assert "17 CPUs exceed this machine's maximum of 16" in result["smp"]
