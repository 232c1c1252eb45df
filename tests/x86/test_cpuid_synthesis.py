"""Synthesis by first principles: what the manuals say, in topologies no capture covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu_reference import identity_of, topology, words_of

from cpufw.core.topology import Topology, TopologyLevel
from cpufw.errors import ModelError
from cpufw_x86.caches import Cache, CacheType
from cpufw_x86.cpuid_words import Levels, minimum_levels
from cpufw_x86.synthesis import synthesise

counts = st.integers(min_value=1, max_value=3)
topologies = st.builds(
    topology, sockets=counts, dies=counts, modules=counts, cores=counts, threads=counts
)
SAPPHIRE_RAPIDS = identity_of("SapphireRapids-v1", words_of("SapphireRapids-v1"))
GENOA = identity_of("EPYC-Genoa-v1", words_of("EPYC-Genoa-v1"))
KIND_OF_LEVEL = {1: "thread", 2: "core", 3: "module", 5: "die"}


@given(topologies)
def test_leaf_1f_lets_a_guest_find_its_place(shape: Topology) -> None:
    """Do as Intel SDM vol. 3A, 9.9.4 tells software to do, on every CPU."""
    for slot in shape.slots():
        table = synthesise(SAPPHIRE_RAPIDS, shape, slot)
        leaf = 0x1F if table.lookup(0x1F)[1] else 0xB
        place, shift, index = {}, 0, 0
        while (answer := table.lookup(leaf, index))[1]:
            next_shift, threads, level, x2apic = answer
            place[KIND_OF_LEVEL[level >> 8]] = (x2apic & (1 << next_shift) - 1) >> shift
            shift, index = next_shift, index + 1
        package = x2apic >> shift

        assert package == slot[TopologyLevel.SOCKET]
        assert threads == shape.threads_per(TopologyLevel.SOCKET)
        several = shape.count(TopologyLevel.DIE) > 1 or shape.count(TopologyLevel.MODULE) > 1
        assert leaf == (0x1F if several else 0xB)
        for name, position in place.items():
            assert position == slot[TopologyLevel(name)]


@given(topologies)
def test_leaf_4_groups_the_cpus_that_share_a_cache(shape: Topology) -> None:
    """CPUs share a cache where their ids agree above ceil(log2(EAX[25:14] + 1)) bits."""
    units: dict[int, set[tuple[tuple[int, ...], int]]] = {1: set(), 2: set(), 3: set()}
    for slot in shape.slots():
        table = synthesise(SAPPHIRE_RAPIDS, shape, slot)
        apic_id = table.lookup(0xB)[3]
        for index in range(4):
            eax = table.lookup(4, index)[0]
            shift = (eax >> 14 & 0xFFF).bit_length()
            level = eax >> 5 & 0b111
            depth = 2 if level == 3 else 4  # level 3 is the die's, the others are the core's
            units[level].add((slot.ids[:depth], apic_id >> shift))
    for found in units.values():
        assert len(found) == len({ids for ids, _ in found}) == len({tag for _, tag in found})


@given(topologies)
def test_leaf_1_counts_the_threads_of_a_package(shape: Topology) -> None:
    threads = shape.threads_per(TopologyLevel.SOCKET)
    table = synthesise(GENOA, shape, shape.slot(0))
    _, ebx, _, edx = table.lookup(1)

    assert ebx >> 16 & 0xFF == (min(threads, 255) if threads > 1 else 0)
    assert bool(edx >> 28 & 1) == (threads > 1)
    assert bool(table.lookup(0x80000001)[2] >> 1 & 1) == (threads > 1)  # AMD's CmpLegacy
    assert table.lookup(0x80000008)[2] & 0xFF == min(threads - 1, 255)


@pytest.mark.parametrize(
    ("shape", "cpu", "expected"),
    [
        # APIC id; threads a core less one and the core's number; the socket
        (topology(sockets=2, cores=4, threads=2), 0, (0, 0x100, 0, 0)),
        (topology(sockets=2, cores=4, threads=2), 7, (7, 0x103, 0, 0)),
        (topology(sockets=2, cores=4, threads=2), 8, (8, 0x100, 1, 0)),
        (topology(sockets=2, cores=3), 5, (6, 0x002, 1, 0)),
    ],
    ids=str,
)
def test_leaf_8000001e(shape: Topology, cpu: int, expected: tuple[int, ...]) -> None:
    assert synthesise(GENOA, shape, shape.slot(cpu)).lookup(0x8000001E) == expected


def test_counts_that_do_not_fit_stay_at_their_largest() -> None:
    shape = topology(cores=512, threads=2)
    table = synthesise(SAPPHIRE_RAPIDS, shape, shape.slot(1023))

    assert table.lookup(1)[1] == 0xFFFF0800  # 255 threads; the low 8 bits of APIC id 1023
    assert table.lookup(4, 0)[0] >> 26 == 63
    assert table.lookup(0xB, 1) == (10, 1024, 0x201, 1023)
    assert table.lookup(0x80000008)[2] == 10 << 12 | 255


def test_kvm_leaves_carry_the_signature_and_the_features() -> None:
    shape = topology()
    words = words_of("Haswell-v1") | {"40000001.EAX": 0x01007EFB, "40000001.EDX": 1}
    table = synthesise(identity_of("Haswell-v1", words), shape, shape.slot(0))

    eax, *signature = table.lookup(0x40000000)
    assert eax == 0x40000001
    text = b"".join(register.to_bytes(4, "little") for register in signature)
    assert text == b"KVMKVMKVM\0\0\0"
    assert table.lookup(0x40000001) == (0x01007EFB, 0, 0, 1)
    assert table.words()["40000001.EAX"] == 0x01007EFB


def test_a_guest_that_must_not_know_of_kvm_sees_no_such_range() -> None:
    shape = topology()
    identity = identity_of("Haswell-v1", words_of("Haswell-v1"), kvm=False)
    table = synthesise(identity, shape, shape.slot(0))

    assert table.lookup(0x40000000) == table.lookup(0xD)
    assert (0x40000000, 0) not in table


def test_without_level_3_only_leaf_8000001d_tells_of_it() -> None:
    shape = topology(cores=2)
    for name in ("Haswell-v1", "EPYC-v1"):
        identity = identity_of(name, words_of(name), l3_cache=False)
        table = synthesise(identity, shape, shape.slot(0))
        assert table.lookup(2)[2] == 0
        assert table.lookup(4, 3) == (0, 0, 0, 0)
        assert table.lookup(0x80000006)[3] == 0
        assert table.lookup(0x80000006)[2] != 0
    assert table.lookup(0x8000001D, 3) == (0x4163, 0x3C0003F, 0x1FFF, 2)  # as on QEMU


def test_without_leaf_b_the_apic_id_is_in_leaf_1_alone() -> None:
    shape = topology(cores=4)
    identity = identity_of("Haswell-v1", words_of("Haswell-v1"), cpuid_0xb=False)
    table = synthesise(identity, shape, shape.slot(3))

    assert table.lookup(0xB) == table.lookup(0xB, 1) == (0, 0, 0, 0)
    assert table.lookup(1)[1] >> 24 == 3


def test_cpu_of_level_0_tells_its_vendor_alone() -> None:
    shape = topology(cores=2)
    identity = identity_of("486-v1", words_of("486-v1"), level=0, kvm=False)

    assert list(synthesise(identity, shape, shape.slot(1))) == [(0, 0)]


def test_intel_multi_die_machines_need_leaf_1f() -> None:
    shape = topology(dies=2)
    assert minimum_levels("GenuineIntel", {"1.EDX": 1}, shape) == Levels(level=0x1F)
    cmp_legacy = Levels(level=1, xlevel=0x80000001)  # several threads in a package show there
    assert minimum_levels("AuthenticAMD", {"1.EDX": 1}, shape) == cmp_legacy
    assert minimum_levels("GenuineIntel", {"1.EDX": 1}, topology(cores=2)) == Levels(level=1)


def test_guest_physical_bits_and_five_level_paging() -> None:
    shape = topology()
    identity = identity_of(
        "SapphireRapids-v1", words_of("SapphireRapids-v1"), phys_bits=52, guest_phys_bits=48
    )
    assert synthesise(identity, shape, shape.slot(0)).lookup(0x80000008)[0] == 0x303934


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vendor": "Intel"}, "vendor 'Intel' has 5 characters"),
        ({"model_id": "x" * 49}, "CPUID holds at most 48"),
        ({"model_id": "Prozeßor"}, "not ASCII"),
        ({"family": 271}, "family 271 does not fit CPUID; expected 0 to 270"),
        ({"stepping": 16}, "stepping 16 does not fit"),
        ({"model": -1}, "model -1 does not fit"),
    ],
)
def test_identity_that_cpuid_cannot_hold_is_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        identity_of("Haswell-v1", {}, **changes)


@pytest.mark.parametrize(
    ("family", "model", "stepping", "signature"),
    [
        (4, 8, 0, 0x00000480),  # 486 DX4
        (6, 60, 3, 0x000306C3),  # Haswell
        (15, 107, 1, 0x00060FB1),  # Athlon 64 X2
        (25, 17, 1, 0x00A10F11),  # EPYC 9004
    ],
)
def test_signature(family: int, model: int, stepping: int, signature: int) -> None:
    identity = identity_of("Haswell-v1", {}, family=family, model=model, stepping=stepping)
    assert identity.signature == signature


CACHE = {
    "level": 3, "type": "unified", "size": 1572864, "line-size": 64, "associativity": 12,
    "partitions": 1, "sets": 2048, "lines-per-tag": 1, "self-init": True,
    "no-invd-sharing": False, "inclusive": True, "complex-indexing": False,
    "share-level": "socket",
}  # fmt: skip


def test_cache_from_a_definition() -> None:
    cache = Cache.from_mapping(CACHE)
    assert (cache.type, cache.share_level) == (CacheType.UNIFIED, TopologyLevel.SOCKET)

    shape = topology(sockets=2, dies=2, cores=3)
    identity = identity_of("Haswell-v1", words_of("Haswell-v1"), caches=(cache,))
    table = synthesise(identity, shape, shape.slot(0))
    eax, ebx, ecx, edx = table.lookup(4)
    assert eax == 3 | 3 << 5 | 1 << 8 | 7 << 14 | 7 << 26  # 2 dies of 3 cores take 3 bits
    assert (ebx, ecx, edx) == (63 | 11 << 22, 2047, 0b010)
    assert table.lookup(2) == (1, 0, 0xDC, 0)
    assert table.lookup(0x80000006)[3] == 3 << 18 | 9 << 12 | 1 << 8 | 64  # ways: see 8000001D


def test_cache_whose_size_contradicts_its_geometry_is_refused() -> None:
    with pytest.raises(ModelError, match="which is 1572864"):
        Cache.from_mapping(CACHE | {"size": 1048576})


def test_many_slots_of_one_identity_share_the_work() -> None:
    shape = topology(sockets=2, cores=64, threads=2)
    tables = [synthesise(SAPPHIRE_RAPIDS, shape, slot) for slot in shape.slots()]

    assert tables[0][7, 0] is tables[255][7, 0]
    assert len({table.lookup(0xB)[3] for table in tables}) == 256
