"""x86 CPU types: properties and what they make of CPUID, with no accelerator."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cpufw
from cpufw.core.cpu import CPUClass, CPUState
from cpufw.errors import CpufwError, ModelError, NotFoundError, PropertyError
from cpufw.framework import Framework
from cpufw_x86.cpu import X86CPU


def realized(framework: Framework, name: str = "Haswell", **properties: Any) -> X86CPU:
    cpu = framework.cpu_class(f"{name}-x86_64-cpu")(**properties)
    cpu.realize()
    assert isinstance(cpu, X86CPU)
    return cpu


def leaf(cpu: X86CPU, number: int, subleaf: int = 0) -> tuple[int, int, int, int]:
    """EAX, EBX, ECX, EDX as the guest reads them."""
    eax, ebx, ecx, edx = cpu.cpuid.lookup(number, subleaf)
    return eax, ebx, ecx, edx


def test_the_package_gives_classes() -> None:
    haswell = cpufw.cpu_class("Haswell-x86_64-cpu")
    assert issubclass(haswell, CPUState)
    assert type(haswell) is CPUClass
    assert haswell is cpufw.cpu_class("Haswell-x86_64-cpu")
    assert (haswell.arch, haswell.model.name, haswell.type_name) == (
        "x86_64",
        "Haswell",
        "Haswell-x86_64-cpu",
    )
    assert "Haswell-v4" in {model.name for model in cpufw.models("x86_64")}


def test_every_model_can_be_realized(framework: Framework) -> None:
    for model in framework.catalogue("x86_64"):
        if not model.dynamic:
            cpu = realized(framework, model.name)
            assert cpu.granted == cpu.requested
            assert model.features <= cpu.granted, model.name
            assert not cpu.granted.unmet(), model.name


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("vendor", "Intel", "a vendor has exactly 12 characters"),
        ("vendor", 5, "expected text"),
        ("family", 271, "expected 0 to 270"),
        ("model", -1, "expected 0 to 255"),
        ("stepping", 16, "expected 0 to 15"),
        ("stepping", "three", "expected a whole number"),
        ("level", 2**32, "expected 0 to 4294967295"),
        ("phys-bits", 31, "expected 32 to 52, or 0 for the default"),
        ("phys-bits", 53, "expected 0 to 52"),
        ("pcid", "maybe", "expected on or off"),
        ("avx22", True, "property of Haswell-x86_64-cpu 'avx22' is not known; did you mean avx2"),
        ("type", "Nehalem", "cannot be set"),
    ],
)
def test_a_wrong_property_is_refused(
    framework: Framework, name: str, value: Any, says: str
) -> None:
    haswell = framework.cpu_class("Haswell-x86_64-cpu")
    with pytest.raises(PropertyError) as caught:
        haswell(**{name: value})
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Hasswell-x86_64-cpu", "Haswell-x86_64-cpu"),
        ("Haswell-v9-x86_64-cpu", "Haswell-v"),
        ("Haswell-arm-cpu", "Haswell-x86_64-cpu"),
        ("Haswell", ""),
    ],
)
def test_an_unknown_type_is_refused_with_the_nearest(
    framework: Framework, name: str, near: str
) -> None:
    with pytest.raises(NotFoundError) as caught:
        framework.cpu_class(name)
    assert f"CPU type '{name}' is not known" in str(caught.value)
    assert near in str(caught.value)


def test_identity_properties_are_what_the_guest_reads(framework: Framework) -> None:
    cpu = realized(
        framework,
        vendor="AuthenticAMD",
        family=23,
        model=0x31,
        stepping=2,
        model_id="A brand of one's own",
    )
    _, ebx, ecx, edx = leaf(cpu, 0)
    text = b"".join(register.to_bytes(4, "little") for register in (ebx, edx, ecx))
    assert text == b"AuthenticAMD"
    # APM vol. 3, E.3.2: family 23 is base 15 plus extended 8, model 0x31 is 1 and extended 3.
    assert leaf(cpu, 1)[0] == 0x0083_0F12
    brand = b"".join(
        register.to_bytes(4, "little")
        for number in range(0x8000_0002, 0x8000_0005)
        for register in leaf(cpu, number)
    )
    assert brand.rstrip(b"\0").decode() == "A brand of one's own"


@pytest.mark.parametrize(
    ("feature", "alias", "number", "register", "bit"),
    [
        # Intel SDM vol. 2A, CPUID.
        ("sse4.1", "sse4-1", 1, 2, 19),
        ("sse4.1", "sse4_1", 1, 2, 19),
        ("pcid", "pcid", 1, 2, 17),
        ("avx2", "avx2", 7, 1, 5),
        ("tsc-deadline", "tsc_deadline", 1, 2, 24),
    ],
)
def test_a_feature_is_one_bit_whatever_it_is_called(
    framework: Framework, feature: str, alias: str, number: int, register: int, bit: int
) -> None:
    without: dict[str, Any] = {alias: False}
    on, off = realized(framework), realized(framework, **without)
    assert leaf(on, number)[register] >> bit & 1 == 1
    assert leaf(off, number)[register] >> bit & 1 == 0
    assert (on.get(alias), off.get(alias)) == (True, False)
    assert (on.get(feature), off.get(feature)) == (True, False)
    assert feature in on.granted - off.granted


def test_turning_a_feature_off_takes_along_what_requires_it(framework: Framework) -> None:
    cpu = realized(framework, avx=False)
    assert not {"avx", "avx2", "fma", "f16c"} & set(cpu.granted)
    assert cpu.expansion is not None
    assert {"avx2", "fma", "f16c"} <= set(cpu.expansion.dropped)


def test_a_feature_without_what_it_requires_is_refused(framework: Framework) -> None:
    with pytest.raises(ModelError, match=r"\+avx2 requires avx, which was turned off; add \+avx"):
        realized(framework, avx=False, avx2=True)


def test_host_cannot_be_without_an_accelerator(framework: Framework) -> None:
    with pytest.raises(ModelError, match="'host' needs an accelerator"):
        realized(framework, "host")
    with pytest.raises(ModelError, match="'max' needs an accelerator"):
        framework.machine("none", cpu="max")


def test_each_slot_s_cpu_reads_its_own_apic_id(framework: Framework) -> None:
    smp = "cpus=12,sockets=2,dies=1,cores=3,threads=2"
    with framework.machine("none", cpu="Haswell", smp=smp) as machine:
        ids = []
        for cpu in machine.cpus():
            assert isinstance(cpu, X86CPU)
            assert leaf(cpu, 1)[1] >> 24 == leaf(cpu, 0xB)[3] == cpu.arch_id
            ids.append(cpu.arch_id)
    # Three cores take two bits: SDM vol. 3A, 9.9.1.
    assert ids == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]


def test_a_machine_of_none_plugs_at_any_level_of_the_topology(framework: Framework) -> None:
    smp = "1,maxcpus=32,sockets=2,dies=2,modules=2,cores=2,threads=2"
    with framework.machine("none", cpu="EPYC-Rome,-avx2", smp=smp) as machine:
        cpu = machine.device_add(
            "EPYC-Rome-x86_64-cpu",
            "last",
            **{"socket-id": 1, "die-id": "1", "module_id": 1, "core_id": 1, "thread_id": 1},
        )
        assert cpu.cpu_index == 31
        assert "avx2" not in cpu.granted  # what --cpu says holds for every CPU of the machine
        place = machine.resolve("topology/socket[1]/die[1]/module[1]/core[1]/thread[1]")
        assert place.get("cpu") == "/machine/peripheral/last"
        machine.device_del("last")
        assert place.get("cpu") == ""
        assert machine.cpus()[0].path == "/machine/unattached/device[0]"


MODELS = ["Haswell", "EPYC-Rome-v2", "qemu64", "486", "base", "SapphireRapids", "Nehalem-v2"]


@settings(max_examples=60)
@given(st.data())
def test_any_wish_is_granted_or_refused_and_never_half_done(
    framework: Framework, data: st.DataObject
) -> None:
    model = framework.find_model(data.draw(st.sampled_from(MODELS)))
    names = [feature.name for feature in model.model.table]
    wishes = data.draw(st.dictionaries(st.sampled_from(names), st.booleans(), max_size=6))
    cpu = model(**wishes)
    try:
        cpu.realize()
    except CpufwError as error:
        assert " requires " in str(error)  # noqa: PT017 - either is right
        assert (cpu.realized, set(cpu.granted), cpu.expansion) == (False, set(), None)
        return
    assert cpu.requested == cpu.granted | cpu.unavailable
    assert not cpu.granted.unmet()
    assert all((name in cpu.granted) == wished for name, wished in wishes.items())
