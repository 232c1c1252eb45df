"""KVM's counters over QMP: what a guest does shows in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from counting_guest import write_image
from qmp_direct import Direct

from cpufw.errors import KvmError
from cpufw.framework import Framework
from cpufw.kvm import KVM
from cpufw.monitor.errors import QmpError


def counted() -> bool:
    """Whether this host's KVM tells what it counts."""
    try:
        with KVM() as kvm:
            return bool(kvm.check_extension("KVM_CAP_BINARY_STATS_FD"))
    except KvmError:
        return False


COUNTED = pytest.mark.skipif(not counted(), reason="KVM has no KVM_CAP_BINARY_STATS_FD here")


@pytest.fixture
def qmp(framework: Framework, tmp_path: Path) -> Iterator[Direct]:
    with framework.machine(
        "pc",
        cpu="Haswell,check=off",
        smp="2,maxcpus=3",
        memory="16M",
        kernel=write_image(tmp_path),
        entry_mode="protected",
        serial=[],
    ) as machine:
        direct = Direct(machine)
        yield direct
        direct.monitor.close()


def of_one(result: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each["value"] for each in result["stats"]}


@pytest.mark.kvm
@COUNTED
def test_what_each_cpu_did_is_told_by_its_path(qmp: Direct) -> None:
    cpus = [each["qom-path"] for each in qmp.run("query-cpus-fast")]
    before = qmp.run("query-stats", target="vcpu")
    assert [each["qom-path"] for each in before] == cpus
    assert {each["provider"] for each in before} == {"kvm"}
    assert of_one(before[0])["exits"] == 0
    qmp.monitor.machine.start()
    qmp.monitor.machine.wait(0.5)
    first, second = map(of_one, qmp.run("query-stats", target="vcpu"))
    assert first["exits"] > 0
    assert second["exits"] == 0  # nobody started it
    assert isinstance(first["guest_mode"], bool)
    assert len(first["halt_wait_hist"]) > 1


@pytest.mark.kvm
@COUNTED
def test_asking_a_guest_that_runs_does_not_stop_it(qmp: Direct) -> None:
    qmp.monitor.machine.start()
    qmp.monitor.machine.wait(0.3)
    for _ in range(20):
        assert qmp.run("query-stats", target="vcpu")
    assert qmp.run("query-status")["status"] == "running"
    assert [name for name, _ in qmp.events] == ["RESUME"]


@pytest.mark.kvm
@COUNTED
def test_filters_leave_what_is_asked_for(qmp: Direct) -> None:
    (vm,) = qmp.run("query-stats", target="vm")
    assert "qom-path" not in vm
    names = [each["name"] for each in vm["stats"]]
    asked = [{"provider": "kvm", "names": [names[1], "no-such-counter"]}]
    (one,) = qmp.run("query-stats", target="vm", providers=asked)
    assert [each["name"] for each in one["stats"]] == [names[1]]
    path = qmp.run("query-cpus-fast")[1]["qom-path"]
    (cpu,) = qmp.run("query-stats", target="vcpu", vcpus=[path, "/no/such/path"])
    assert cpu["qom-path"] == path


@pytest.mark.kvm
@pytest.mark.parametrize(
    "asked",
    [
        {"target": "cryptodev"},
        {"target": "vm", "providers": []},
        {"target": "vm", "providers": [{"provider": "cryptodev"}]},
        {"target": "vm", "providers": [{"provider": "kvm", "names": ["no-such-counter"]}]},
        {"target": "vcpu", "vcpus": []},
    ],
)
def test_who_asks_for_nothing_gets_nothing(qmp: Direct, asked: dict[str, Any]) -> None:
    assert qmp.run("query-stats", **asked) == []


@pytest.mark.kvm
@COUNTED
def test_a_cpu_that_comes_and_goes_and_comes_again(qmp: Direct) -> None:
    for _ in range(2):
        qmp.run("device_add", driver="Haswell-x86_64-cpu", id="new", **place(qmp, 2))
        told = [each["qom-path"] for each in qmp.run("query-stats", target="vcpu")]
        assert told[2:] == ["/machine/peripheral/new"]
        qmp.run("device_del", id="new")
        assert len(qmp.run("query-stats", target="vcpu")) == 2


def place(qmp: Direct, index: int) -> dict[str, Any]:
    props: dict[str, Any] = qmp.monitor.machine.place_of(qmp.monitor.machine.slots[index])
    return props


@pytest.mark.kvm
@COUNTED
def test_the_schemas_describe_every_counter(qmp: Direct) -> None:
    schemas = {each["target"]: each["stats"] for each in qmp.run("query-stats-schemas")}
    for target in ("vm", "vcpu"):
        told = [each["name"] for each in qmp.run("query-stats", target=target)[0]["stats"]]
        assert [each["name"] for each in schemas[target]] == told
    by_name = {each["name"]: each for each in schemas["vcpu"]}
    # As QEMU 7.2 told them on this kernel's counters.
    assert by_name["halt_wait_ns"] == {
        "name": "halt_wait_ns", "type": "cumulative", "unit": "seconds", "base": 10, "exponent": -9
    }  # fmt: skip
    assert by_name["guest_mode"] == {
        "name": "guest_mode", "type": "instant", "unit": "boolean", "exponent": 0
    }  # fmt: skip
    assert by_name["halt_wait_hist"]["type"] == "log2-histogram"
    assert qmp.run("query-stats-schemas", provider="cryptodev") == []


def test_no_accelerator_counts_nothing(framework: Framework) -> None:
    with framework.machine("none", cpu="Haswell", smp="2") as machine:
        qmp = Direct(machine)
        assert qmp.run("query-stats", target="vcpu") == []
        assert qmp.run("query-stats", target="vm") == []
        assert qmp.run("query-stats-schemas") == []
        with pytest.raises(QmpError, match="Parameter 'vcpus' is unexpected"):
            qmp.run("query-stats", target="vm", vcpus=[])
        qmp.monitor.close()
