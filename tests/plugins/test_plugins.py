"""Plugins are found by their entry points; a broken one is named and harms nobody."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from importlib import invalidate_caches
from pathlib import Path

import pytest

from cpufw import hookspecs
from cpufw.core.hotplug import HotplugEventKind
from cpufw.errors import CpufwError, HotplugError, PluginError
from cpufw.framework import Framework
from cpufw.plugins import Plugin

pytestmark = pytest.mark.usefixtures("framework")  # compiles the built-in definitions once

Install = Callable[..., Path]
TESTS = Path(__file__).parents[1]

IMPORTS = """\
from pathlib import Path
from cpufw.core.arch import AcceleratorType, Architecture, MachineType
from cpufw.hookspecs import hookimpl
HERE = Path(__file__).parent
def architecture(name, folder):
    from cpufw_x86.plugin import cpufw_architectures
    from dataclasses import replace
    return replace(cpufw_architectures()[0], name=name, definitions=HERE / folder)
def machine_type(name, alias=None):
    return MachineType(name, "x86_64", "a machine", "qemu64", 4, lambda *_: None, alias)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with one plugin module; returns the folder it is in."""
    modules: list[str] = []

    def install(code: str, name: str = "fake", distribution: str = "cpufw-fake") -> Path:
        module = f"plugin_module_{len(modules)}_{tmp_path.name.replace('-', '_')}"
        modules.append(module)
        folder = tmp_path / distribution
        info = folder / f"{distribution.replace('-', '_')}-4.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 4.5\n"
        )
        (info / "entry_points.txt").write_text(f"[cpufw]\n{name} = {module}\n")
        (folder / f"{module}.py").write_text(IMPORTS + code)
        monkeypatch.syspath_prepend(str(folder))
        return folder

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def names(framework: Framework) -> set[str]:
    return {row["name"] for row in framework.listing()}


def plugin(framework: Framework, name: str = "fake") -> Plugin:
    (found,) = [each for each in framework.plugins.plugins if each.name == name]
    return found


def hook(name: str, body: str, arguments: str = "") -> str:
    return f"@hookimpl\ndef {name}({arguments}):\n    {body}\n"


BROKEN = {
    "import error": ("import nothing_of_this_name", "ModuleNotFoundError: No module named"),
    "syntax error": ("def (:", "SyntaxError: "),
    "exit at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "silent exit": ("raise SystemExit", "SystemExit: SystemExit"),
    "unknown hook": (
        hook("cpufw_archs", "return []"),
        "there is no hook cpufw_archs; hooks are cpufw_accelerators, cpufw_architectures, ",
    ),
    "unknown argument": (
        hook("cpufw_hotplug_veto", "return None", "slot, weather"),
        "PluginValidationError: ",
    ),
    "hook raises": (hook("cpufw_architectures", "return [1 / 0]"), "ZeroDivisionError: division"),
    "hook exits": (hook("cpufw_machine_types", "raise SystemExit('bye')"), "SystemExit: bye"),
    "no list": (hook("cpufw_accelerators", "return None"), "TypeError: 'NoneType' object is not"),
    "wrong things": (
        hook("cpufw_architectures", "return ['x86']"),
        "cpufw_architectures gives 'x86', expected Architecture",
    ),
    "wrong folder": (
        hook("cpufw_definitions", "return ['/nowhere']"),
        "cpufw_definitions gives '/nowhere', expected Path",
    ),
    "no such folder": (
        hook("cpufw_definitions", "return [HERE / 'gone']"),
        "CpufwError: definition folder ",
    ),
    "broken definitions": (
        hook("cpufw_definitions", "return [HERE / 'broken']"),
        "Broken.yaml:3:1: YAML syntax: ",
    ),
    "architecture without features": (
        hook("cpufw_architectures", "return [architecture('thing', 'empty')]"),
        "its definitions do not give the features of architecture 'thing'",
    ),
    "architecture that exists": (
        hook("cpufw_architectures", "return [architecture('x86_64', 'empty')]"),
        "architecture 'x86_64' is there already",
    ),
    "features that exist": (
        hook("cpufw_architectures", "return [architecture('thing', 'copy')]"),
        "defines features of x86_64, which are defined already",
    ),
    "machine type that exists": (
        hook("cpufw_machine_types", "return [machine_type('mine'), machine_type('new', 'pc')]"),
        "machine type 'pc' is there already",
    ),
}


def prepare(folder: Path) -> None:
    (folder / "broken").mkdir()
    (folder / "broken" / "Broken.yaml").write_text("kind: x86-model\nname: [\n")
    (folder / "empty").mkdir()
    (folder / "copy").mkdir()
    (folder / "copy" / "features.yaml").write_text(
        "kind: features\narch: x86_64\nmodels: x86-model\nfeatures:\n"
        "  - {name: fpu, place: 1.EDX:0, description: a copy of it, source: nowhere at all}\n"
    )


@pytest.mark.parametrize(("code", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_named_with_its_reason_and_the_rest_works(
    install: Install, framework: Framework, code: str, reason: str
) -> None:
    prepare(install(code))
    mine = Framework()
    (broken,) = mine.plugins.broken
    assert (broken.name, broken.distribution, broken.version) == ("fake", "cpufw-fake", "4.5")
    assert broken.error is not None
    assert reason in broken.error
    assert broken.hooks == ()
    assert mine.plugins.sentence(broken) == (
        f"plugin 'fake' of cpufw-fake 4.5 is not in use: {broken.error}"
    )
    assert names(mine) == names(framework)
    assert set(mine.architectures) == set(framework.architectures)
    assert set(mine.machine_types) == set(framework.machine_types)
    with mine.machine("none", cpu="Haswell", smp="1,maxcpus=2") as machine:
        assert machine.device_add("Haswell-x86_64-cpu", "a", socket_id=0, core_id=1, thread_id=0)


@pytest.mark.parametrize(("code", "reason"), BROKEN.values(), ids=BROKEN)
def test_strict_makes_it_fatal(install: Install, code: str, reason: str) -> None:
    prepare(install(code))
    with pytest.raises(PluginError, match=r"plugin 'fake' of cpufw-fake 4\.5") as caught:
        Framework(strict_plugins=True)
    assert reason in str(caught.value)


@pytest.mark.parametrize("late", ["cpufw_machine_types", "cpufw_accelerators"])
def test_a_plugin_that_breaks_half_way_leaves_nothing_behind(
    install: Install, framework: Framework, late: str
) -> None:
    folder = install(
        hook("cpufw_definitions", "return [HERE / 'mine']")
        + hook("cpufw_machine_types", "return [machine_type('mine')]")
        + hook("cpufw_accelerators", "return []")
        + hook(late, "raise OSError('no more')")
    )
    (folder / "mine").mkdir()
    (folder / "mine" / "Mine.yaml").write_text(
        "kind: x86-model\nname: Mine\ndescription: mine alone\nbase: Haswell\n"
    )
    mine = Framework()
    assert plugin(mine).error == "OSError: no more"
    assert names(mine) == names(framework)
    assert "mine" not in mine.machine_types


def test_a_plugin_that_is_edited_is_seen_at_the_next_start(install: Install) -> None:
    folder = install(hook("cpufw_commands", "return []"))
    (module,) = folder.glob("*.py")
    for _ in range(2):  # the second knows the plugins from the stamp
        assert plugin(Framework()).hooks == ("cpufw_commands",)
    more = hook("cpufw_machine_types", "return [machine_type('mine')]")
    module.write_text(module.read_text() + more)
    del sys.modules[module.stem]
    invalidate_caches()
    for _ in range(2):
        mine = Framework()
        assert plugin(mine).hooks == ("cpufw_commands", "cpufw_machine_types")
        assert "mine" in mine.machine_types


def test_a_plugin_that_a_distribution_names_anew_is_seen(install: Install) -> None:
    folder = install(hook("cpufw_commands", "return []"))
    (points,) = folder.glob("*.dist-info/entry_points.txt")
    (module,) = folder.glob("*.py")
    module.with_stem(f"{module.stem}_two").write_text(IMPORTS + hook("cpufw_commands", "return []"))
    assert plugin(Framework()).hooks
    points.write_text(points.read_text() + f"second = {module.stem}_two\n")
    assert plugin(Framework(), "second").hooks == ("cpufw_commands",)
    del sys.modules[f"{module.stem}_two"]


def test_a_plugin_of_the_stamp_that_no_longer_imports_is_named(install: Install) -> None:
    code = "import os\nif 'PLUGIN_BREAKS' in os.environ: raise OSError('no more')\n"
    folder = install(code + hook("cpufw_machine_types", "return [machine_type('mine')]"))
    assert "mine" in Framework().machine_types
    (module,) = folder.glob("*.py")
    del sys.modules[module.stem]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUGIN_BREAKS", "1")
        broken = Framework()
    assert plugin(broken).error == "OSError: no more"
    assert "mine" not in broken.machine_types
    assert "pc" in broken.machine_types


def test_the_name_of_a_plugin_is_given_once(install: Install) -> None:
    install(hook("cpufw_commands", "return []"), "x86", "cpufw-thief")
    (broken,) = Framework().plugins.broken
    assert (broken.name, broken.distribution) == ("x86", "cpufw-thief")
    assert broken.error == "a plugin 'x86' is there already, of cpufw"


def test_two_broken_plugins_are_both_named(install: Install) -> None:
    install("import nothing_here", "one", "cpufw-one")
    install("import nothing_there", "two", "cpufw-two")
    assert [each.name for each in Framework().plugins.broken] == ["one", "two"]


def test_an_object_can_be_the_plugin(install: Install) -> None:
    folder = install(
        "class Watch:\n"
        "    @hookimpl\n"
        "    def cpufw_hotplug_veto(self, slot):\n"
        "        return 'not today' if slot.index else None\n"
        "watch = Watch()\n"
    )
    (points,) = folder.glob("*.dist-info/entry_points.txt")
    points.write_text(points.read_text().rstrip() + ":watch\n")
    mine = Framework()
    assert plugin(mine).hooks == ("cpufw_hotplug_veto",)
    with (
        mine.machine("none", cpu="Haswell", smp="1,maxcpus=2") as machine,
        pytest.raises(HotplugError, match="plugin fake vetoes: not today"),
    ):
        machine.device_add("Haswell-x86_64-cpu", socket_id=0, core_id=1, thread_id=0)


def test_a_plugin_adds_models_from_a_folder(install: Install, framework: Framework) -> None:
    folder = install(hook("cpufw_definitions", "return [HERE / 'mine']"))
    (folder / "mine").mkdir()
    (folder / "mine" / "Mine.yaml").write_text(
        "kind: x86-model\nname: Mine\ndescription: mine alone\nbase: Haswell-v4\nadd: [pdpe1gb]\n"
    )
    mine = Framework()
    assert not mine.plugins.broken
    assert names(mine) - names(framework) == {"Mine"}
    assert "pdpe1gb" in mine.cpu_class("Mine-x86_64-cpu").model.features


WATCHER = """\
seen = []
def broken():
    raise ValueError("I saw a ghost")
@hookimpl
def cpufw_hotplug_event(event):
    seen.append(event)
@hookimpl
def cpufw_cpu_realized(cpu):
    seen.append(cpu)
"""


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cpufw_hotplug_event", "event"),
        ("cpufw_cpu_realized", "cpu"),
    ],
)
def test_an_observer_that_breaks_at_work_is_taken_out_and_nobody_else(
    install: Install, name: str, arguments: str
) -> None:
    install(hook(name, "1 / 0", arguments), "breaks", "cpufw-breaks")
    install(WATCHER, "watches", "cpufw-watches")
    mine = Framework()
    assert not mine.plugins.broken
    with mine.machine("none", cpu="Haswell", smp="1,maxcpus=2") as machine:
        cpu = machine.device_add("Haswell-x86_64-cpu", "a", socket_id=0, core_id=1, thread_id=0)
        assert machine.cpus()[1] is cpu
        events = list(machine.events(timeout=0))
    assert plugin(mine, "breaks").error == "ZeroDivisionError: division by zero"
    seen = plugin(mine, "watches").load().seen
    assert [each for each in seen if each in events] == events
    assert cpu in seen


def test_a_veto_is_asked_of_every_plug_and_unplug(install: Install) -> None:
    install(
        "asked = []\n"
        + hook(
            "cpufw_hotplug_veto",
            "asked.append((slot.index, kind)); return 'pinned' if len(asked) == 3 else None",
            "slot, kind",
        )
    )
    mine = Framework()
    with mine.machine("none", cpu="Haswell", smp="1,maxcpus=2") as machine:
        machine.device_add("Haswell-x86_64-cpu", "a", socket_id=0, core_id=1, thread_id=0)
        with pytest.raises(HotplugError, match="plugin fake vetoes: pinned"):
            machine.device_del("a")
        machine.device_del("a")
    assert plugin(mine).load().asked == [
        (0, HotplugEventKind.PLUGGING),
        (1, HotplugEventKind.PLUGGING),
        (1, HotplugEventKind.UNPLUG_REQUESTED),
        (1, HotplugEventKind.UNPLUG_REQUESTED),
    ]


def test_a_veto_that_cannot_answer_refuses_and_is_not_asked_again(install: Install) -> None:
    install(hook("cpufw_hotplug_veto", "return None if slot.index == 0 else 1 / 0", "slot, kind"))
    mine = Framework()
    with mine.machine("none", cpu="Haswell", smp="1,maxcpus=2") as machine:
        ids = {"socket_id": 0, "core_id": 1, "thread_id": 0}
        with pytest.raises(HotplugError, match=r"plugin 'fake' .* is not in use: ZeroDivision"):
            machine.device_add("Haswell-x86_64-cpu", "a", **ids)
        machine.device_add("Haswell-x86_64-cpu", "a", **ids)


def test_a_machine_needs_what_its_type_says(framework: Framework) -> None:
    with pytest.raises(CpufwError, match="machine type none needs a CPU model"):
        framework.machine("none")
    with pytest.raises(CpufwError, match="machine type none takes no memory"):
        framework.machine("none", cpu="Haswell", memory="1G")
    with pytest.raises(CpufwError, match="machine type 'pcc' is not known; did you mean pc"):
        framework.machine("pcc")
    with pytest.raises(CpufwError, match="accelerator 'kwm' is not known; did you mean kvm"):
        framework.machine("pc", accel="kwm")


# --- the contract itself -----------------------------------------------------------------


def test_every_hook_is_exercised_by_a_test() -> None:
    """A hook that no test names is a promise that nobody keeps."""
    tested = "\n".join(
        path.read_text(encoding="utf-8")
        for path in TESTS.rglob("*.py")
        if path.name != "test_hookspecs.py"
    )
    hooks = [name for name, _ in inspect.getmembers(hookspecs) if name.startswith("cpufw_")]
    assert hooks
    assert [name for name in hooks if not re.search(rf"def {name}\b|\"{name}\"", tested)] == []


def test_every_hook_says_what_it_is_for_and_what_it_gives() -> None:
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction):
        if name.startswith("cpufw_"):
            assert inspect.getdoc(function), name
            assert inspect.signature(function).return_annotation, name
