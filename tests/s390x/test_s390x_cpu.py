"""s390x CPUs: the order of settings, what a guest reads, and the machine they stand in."""

import pytest

from cpufw.core.cpu import CPUState
from cpufw.errors import HotplugError, ModelError, TopologyError
from cpufw.framework import Framework

# STFLE's bits and STIDP's machine type, read by a guest of QEMU 10.0.2 under TCG
QEMU_FACILITIES = [
    *(0, 1, 2, 3, 4, 7, 9, 16, 17, 18, 19, 21, 22, 24, 25, 27, 30, 31, 32, 33, 34, 35, 37, 40, 41),
    *(45, 49, 51, 52, 53, 57, 58, 61, 69, 71, 72, 75, 76, 77, 129, 130, 131, 135, 138, 146, 148),
]
QEMU_STIDP = dict(
    line.split()
    for line in """
        z900 2064
        z800 2066
        z990.4 2084
        z890.3 2086
        z9EC 2094
        z9BC.2 2096
        z10EC 2097
        z10BC 2098
        z196 2817
        z114 2818
        zEC12 2827
        zBC12 2828
        z13 2964
        z13s 2965
        z14 3906
        z14.2 3906
        z14ZR1 3907
        gen15a 8561
        gen15b 8562
        qemu 8561
    """.strip().splitlines()
)


def realized(framework: Framework, text: str) -> CPUState:
    cpu = framework.cpu(text, "s390x")
    cpu.realize()
    return cpu


def facility_bits(cpu: CPUState) -> list[int]:
    stored: bytes = cpu.facilities  # type: ignore[attr-defined]
    assert len(stored) % 8 == 0
    return [bit for bit in range(8 * len(stored)) if stored[bit // 8] >> (7 - bit % 8) & 1]


# --- settings ------------------------------------------------------------------------------


def test_a_group_sets_all_its_members_and_clears_them(framework: Framework) -> None:
    without = realized(framework, "z14,msa5=off,check=off")
    assert not {"msa5-base", "ppno-sha-512-drng"} & set(without.granted)
    with_it = realized(framework, "z13-base,msa5=on,msa2=on")
    assert {"msa5-base", "ppno-sha-512-drng"} <= set(with_it.granted)
    assert (without.get("msa5"), with_it.get("msa5")) == (False, True)


def test_the_last_word_on_a_feature_counts(framework: Framework) -> None:
    some = framework.cpu("z14,msa=off,kmac-dea=on", "s390x")
    assert (some.get("kmac-dea"), some.get("km-dea"), some.get("msa")) == (True, False, False)
    none = framework.cpu("z14,kmac-dea=on,msa=off", "s390x")
    assert none.get("kmac-dea") is False


def test_groups_are_properties_of_the_type(framework: Framework) -> None:
    properties = framework.cpu_class("z14-s390x-cpu").properties
    assert properties["msa8"].default is True
    assert properties["msa9"].default is False
    assert "km-dea" in properties["msa"].description


def test_what_lacks_a_requirement_stays_and_is_warned_of(framework: Framework) -> None:
    cpu = realized(framework, "z14,vx=off")
    assert {"vxeh", "vxpd"} <= set(cpu.granted)
    assert cpu.warnings == ("z14: vx is required by vxpd, vxeh and off",)
    with pytest.raises(ModelError, match="vx is required by vxpd, vxeh and off"):
        realized(framework, "z14,vx=off,enforce=on")


# --- what a guest reads ----------------------------------------------------------------------


def test_facilities_are_what_a_guest_of_qemu_reads(framework: Framework) -> None:
    assert facility_bits(realized(framework, "qemu")) == QEMU_FACILITIES


@pytest.mark.parametrize("name", QEMU_STIDP)
def test_cpuid_is_what_a_guest_of_qemu_reads(framework: Framework, name: str) -> None:
    cpu = realized(framework, name)
    assert f"{cpu.cpuid:016x}" == f"00000000{QEMU_STIDP[name]}0000"  # type: ignore[attr-defined]


# --- the machine -----------------------------------------------------------------------------


def test_cpus_come_and_do_not_go(framework: Framework) -> None:
    with framework.machine("s390-ccw-virtio", smp="1,maxcpus=3") as machine:
        assert machine.machine_type.name == "s390-ccw-virtio-10.0"
        assert machine.cpus()[0].model.name == "qemu"
        added = machine.device_add("qemu-s390x-cpu", id="more", core_id=2)
        assert (added.arch_id, added.get("core-id"), added.get("socket-id")) == (2, 2, 0)
        with pytest.raises(HotplugError, match="cannot unplug CPUs"):
            machine.device_del("more")


def test_cores_are_counted_through_books_and_drawers(framework: Framework) -> None:
    smp = "8,drawers=2,books=2,sockets=1,cores=2"
    with framework.machine("s390-ccw-virtio", cpu="max", smp=smp) as machine:
        assert [cpu.arch_id for cpu in machine.cpus()] == list(range(8))
        top = machine.hotpluggable_cpus()[0]["props"]
        # As QEMU 10.0.2 shows them.
        assert top == {"drawer-id": 1, "book-id": 1, "socket-id": 0, "core-id": 7}


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ({}, "core-id is not set"),
        ({"core_id": 8}, "core-id=8 is not there, expected 0 to 7"),
        ({"core_id": 7, "drawer_id": 0}, "core-id=7 is not there, expected 0 to 3"),
        ({"core_id": 0}, "slot 0 .* is taken by"),
    ],
)
def test_ids_that_name_no_free_core_are_refused(
    framework: Framework, ids: dict[str, int], sentence: str
) -> None:
    smp = "1,maxcpus=8,drawers=2,books=2,sockets=1,cores=2"
    machine = framework.machine("s390-ccw-virtio", cpu="max", smp=smp)
    with machine, pytest.raises(HotplugError, match=sentence):
        machine.device_add("max-s390x-cpu", id="more", **ids)


def test_an_older_version_of_the_machine_has_the_same_cpus(framework: Framework) -> None:
    with framework.machine("s390-ccw-virtio-7.2", cpu="z14") as machine:
        newest = framework.machine("s390-ccw-virtio-10.0", cpu="z14").cpus()[0]
        assert set(machine.cpus()[0].granted) == set(newest.granted)


@pytest.mark.parametrize("smp", ["2,threads=2", "249"])
def test_no_threads_and_no_more_than_248_cores(framework: Framework, smp: str) -> None:
    with pytest.raises(TopologyError):
        framework.machine("s390-ccw-virtio", smp=smp)
