"""CPU types and CPUs: classes on demand, properties until realize, what is granted."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw.core.arch import CompatProperty
from cpufw.core.cpu import CPUClass, CPUState
from cpufw.core.model import AliasRule
from cpufw.errors import ModelError, NotFoundError, PropertyError

from .lab import TABLE, LabAccelerator, LabCPU, lab_class, lab_machine, plug, registry

NAMES = [feature.name for feature in TABLE]


def test_a_class_is_built_when_first_asked_for_and_then_kept() -> None:
    built: list[str] = []

    class Counting(LabCPU):
        def __init_subclass__(cls, **options: Any) -> None:
            super().__init_subclass__(**options)
            built.append(cls.type_name)

    known = registry(Counting)
    assert "one-v2-lab-cpu" in list(known.type_names())
    assert built == []
    one = known.cpu_class("one-v2-lab-cpu")
    assert known.cpu_class("one-v2-lab-cpu") is one
    assert built == ["one-v2-lab-cpu"]


def test_a_cpu_type_is_a_class_with_facts() -> None:
    one = lab_class("one")
    assert issubclass(one, CPUState)
    assert isinstance(one, CPUClass)
    assert (one.type_name, one.arch, one.model.name) == ("one-lab-cpu", "lab", "one")
    assert one.properties["speed"].default == 7
    assert one.properties["wide"].default is True
    assert one.properties["nested"].default is False
    assert repr(one) == "<CPU type one-lab-cpu>"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("won-lab-cpu", "one-lab-cpu"),
        ("ONE-lab-cpu", "one-lab-cpu"),
        ("one-v9-lab-cpu", "one-v1-lab-cpu"),
        ("one", ""),
        ("-lab-cpu", ""),
        ("", ""),
    ],
)
def test_an_unknown_type_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(NotFoundError, match=r"CPU type '.*' is not known") as caught:
        registry().cpu_class(name)
    assert near in str(caught.value)


def test_a_cpu_without_a_machine_can_be_realized_and_taken_back() -> None:
    cpu = lab_class("one")(clock=True)
    cpu.realize()
    assert set(cpu.granted) == {"base", "wide", "clock"}
    assert (cpu.cpu_index, cpu.arch_id, cpu.path) == (0, 0, "/")
    with pytest.raises(PropertyError, match="is realized already"):
        cpu.realize()
    cpu.unrealize()
    assert (cpu.realized, set(cpu.granted)) == (False, set())
    cpu.set("clock", False)
    cpu.realize()
    assert "clock" not in cpu.granted


def test_properties_can_be_set_until_realize_never_after() -> None:
    cpu = lab_class("one")(speed=9)
    cpu.set("wide", False)
    cpu.realize()
    before = {name: cpu.get(name) for name in cpu.list_properties()}
    for name, value in (("speed", 3), ("wide", True), ("nested", "on"), ("enforce", True)):
        with pytest.raises(PropertyError, match=f"cpu.{name} cannot be set: .* realized"):
            cpu.set(name, value)
    assert {name: cpu.get(name) for name in cpu.list_properties()} == before
    assert cpu.get("speed") == 9


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("wied", True, "property of one-lab-cpu 'wied' is not known; did you mean wide"),
        ("wide", "perhaps", "expected on or off"),
        ("speed", 0, "out of range, expected 1 to 4294967295"),
        ("speed", 2**32, "out of range"),
        ("maker", 7, "expected text"),
        ("core-id", -(2**31) - 1, "out of range"),
    ],
)
def test_wrong_properties_are_refused(name: str, value: Any, says: str) -> None:
    with pytest.raises(PropertyError, match=re.escape(says)):
        lab_class("one")(**{name: value})


def test_an_alias_is_the_same_property() -> None:
    cpu = lab_class("one")()
    cpu.set("klock", True)
    assert cpu.get("clock") is True
    cpu.set("lab_clock", False)
    assert cpu.get("clock") is False
    cpu.set("klock", True)  # the last word counts, whatever the name
    cpu.realize()
    assert "clock" in cpu.granted
    assert all(cpu.get(name) is True for name in ("clock", "klock", "lab-clock", "lab_clock"))


def test_a_realized_cpu_shows_what_was_granted() -> None:
    with lab_machine(cpu="one-v2", accelerator=LabAccelerator("base wide")) as machine:
        (cpu,) = machine.cpus()
        assert (cpu.get("wide"), cpu.get("wider")) == (True, False)
        assert cpu.warnings == ("one-v2: lab does not grant wider (w0:2)",)


def test_a_cpu_shows_its_place() -> None:
    with lab_machine("1,maxcpus=4,sockets=2,cores=2") as machine:
        boot = machine.cpus()[0]
        hot = machine.device_add("one-lab-cpu", "a", socket_id=1, core_id=0, thread_id=0)
        assert [boot.get(name) for name in ("socket-id", "core-id", "thread-id")] == [0, 0, 0]
        assert [hot.get(name) for name in ("socket-id", "core_id", "thread-id")] == [1, 0, 0]
        assert (hot.cpu_index, hot.arch_id) == (2, 102)


@given(
    st.sampled_from(["one", "one-v2", "two", "empty"]),
    st.dictionaries(st.sampled_from(NAMES), st.booleans()),
    *[st.sets(st.sampled_from(NAMES)) for _ in range(3)],
)
def test_requested_is_granted_and_unavailable(
    name: str, wishes: dict[str, bool], granted: set[str], on: set[str], off: set[str]
) -> None:
    accelerator = LabAccelerator(" ".join(granted), " ".join(on), " ".join(off))
    properties: dict[str, Any] = dict(wishes)
    try:
        machine = lab_machine(cpu=name, accelerator=accelerator, **properties)
    except ModelError:  # a wish that lacks what it requires: test_model.py looks at those
        return
    with machine:
        (cpu,) = machine.cpus()
        assert cpu.granted | cpu.unavailable == cpu.requested
        assert not cpu.granted & cpu.unavailable
        assert set(cpu.granted) <= granted
        assert bool(cpu.warnings) == bool(cpu.unavailable)
        assert not cpu.requested.unmet()


def test_enforce_refuses_and_check_off_is_silent() -> None:
    accelerator = LabAccelerator("base")
    with pytest.raises(ModelError, match=r"one: lab does not grant wide \(w0:1\)"):
        lab_machine(accelerator=accelerator, enforce=True)
    with lab_machine(accelerator=accelerator, check=False) as machine:
        assert machine.cpus()[0].warnings == ()
        assert set(machine.cpus()[0].unavailable) == {"wide"}


def test_host_is_what_the_accelerator_has_less_what_ties_a_guest_to_it() -> None:
    with lab_machine(cpu="host", accelerator=LabAccelerator("base clock tied")) as machine:
        (cpu,) = machine.cpus()
        assert set(cpu.granted) == {"base", "clock"}
        assert cpu.expansion is not None
        assert cpu.expansion.identity["maker"] == "the host's maker"


def test_host_needs_an_accelerator() -> None:
    with pytest.raises(ModelError, match="'host' needs an accelerator"):
        lab_machine(cpu="host")
    cpu = lab_class("host")()
    with pytest.raises(ModelError, match="'host' needs an accelerator"):
        cpu.realize()


COMPAT = (
    CompatProperty("lab-cpu", "speed", "3"),
    CompatProperty("one-lab-cpu", "klock", "on"),
    CompatProperty("two-lab-cpu", "nested", "on"),
)


def test_a_machine_type_s_compat_properties_come_before_the_user_s() -> None:
    with lab_machine(compat=COMPAT) as machine:
        (cpu,) = machine.cpus()
        assert set(cpu.granted) == {"base", "wide", "clock"}
        assert cpu.expansion is not None
        assert cpu.expansion.identity["speed"] == 3
    with lab_machine(compat=COMPAT, clock=False, speed=4) as machine:
        (cpu,) = machine.cpus()
        assert "clock" not in cpu.granted
        assert cpu.expansion is not None
        assert cpu.expansion.identity["speed"] == 4
    with lab_machine(cpu="one-v1", compat=COMPAT) as machine:  # a version never changes
        assert set(machine.cpus()[0].granted) == {"base", "wide"}


def test_a_machine_type_says_which_version_a_name_means() -> None:
    with lab_machine(alias_rule=AliasRule.NEWEST) as machine:
        assert "wider" in plug(machine, "hot").granted
        assert machine.cpus()[0].type_name == "one-lab-cpu"
