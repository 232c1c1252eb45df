"""Every PowerPC model is what QEMU 10.0.2 says it is; no model is left out."""

from __future__ import annotations

import pytest
from ppc_reference import FACTS, MODELS

from cpufw.framework import Framework
from cpufw_ppc.compat import COMPAT_MODES
from cpufw_ppc.cpu import PPCCPU
from cpufw_ppc.pvr import find_by_pvr

ARCHS = pytest.mark.parametrize("arch", ["ppc", "ppc64"])

# The manuals of these cores say Book E; QEMU gives programs no such bit. HWCAP:15.
BOOK_E = {"e500v1", "e500v2", "e500mc", "e5500", "e6500"}


def made(framework: Framework, text: str, arch: str = "ppc64") -> PPCCPU:
    """A realized CPU."""
    cpu = framework.cpu(text, arch)
    assert isinstance(cpu, PPCCPU)
    cpu.realize()
    return cpu


@ARCHS
def test_the_names_are_the_same_and_as_many(framework: Framework, arch: str) -> None:
    reference = MODELS[arch]
    names = [model.name for model in framework.catalogue(arch)]
    assert len(names) == {"ppc": 384, "ppc64": 420}[arch]
    assert set(names) == reference["models"].keys() | reference["aliases"].keys()


@ARCHS
def test_every_model_has_its_pvr_family_and_type(framework: Framework, arch: str) -> None:
    catalogue = framework.catalogue(arch)
    for name, reference in MODELS[arch]["models"].items():
        model = catalogue[name]
        assert model.identity["pvr"] == int(reference["pvr"], 16), name
        assert f"{model.family}-family-{framework.suffix(arch)}" == reference["family"]
        assert (model.alias_of, model.version) == (None, None)
        assert framework.find_model(name, arch).type_name == reference["typename"]


@ARCHS
def test_every_alias_is_another_name_of_its_model(framework: Framework, arch: str) -> None:
    catalogue = framework.catalogue(arch)
    for name, reference in MODELS[arch]["aliases"].items():
        assert catalogue[name].alias_of == reference["alias-for"]
        cpu_class = framework.find_model(name, arch)
        assert cpu_class.type_name == reference["typename"]
        assert cpu_class is framework.find_model(reference["alias-for"], arch)


@ARCHS
def test_the_listing_gives_the_types_of_the_reference(framework: Framework, arch: str) -> None:
    listed = {row["name"]: row["type"] for row in framework.listing() if row["arch"] == arch}
    reference = {**MODELS[arch]["models"], **MODELS[arch]["aliases"]}
    assert listed == {name: entry["typename"] for name, entry in reference.items()}
    assert set(framework.registry.type_names()) >= set(listed.values())


def test_every_model_tells_programs_the_same(framework: Framework) -> None:
    for name, facts in FACTS["models"].items():
        cpu = made(framework, name)
        hwcap, hwcap2 = (int(word, 16) for word in facts["hwcap"])
        if cpu.model.family in BOOK_E:
            hwcap |= 1 << 15
        assert (cpu.hwcap, cpu.hwcap2) == (hwcap, hwcap2), name


def test_every_model_has_the_registers_of_its_facilities(framework: Framework) -> None:
    for name, facts in FACTS["models"].items():
        features = framework.catalogue("ppc64")[name].features
        groups = [group for group in ("fpu", "altivec", "vsx", "spe") if group in features]
        assert groups == facts["registers"], name
        assert ("radix" in features) == ("ptcr" in facts["sprs"]), name


def test_models_with_one_kind_of_mmu_have_its_registers(framework: Framework) -> None:
    found: dict[str, set[tuple[str, ...]]] = {}
    for name, facts in FACTS["models"].items():
        model = framework.catalogue("ppc64")[name]
        found.setdefault(model.identity["mmu"], set()).add(tuple(facts["sprs"]))
    assert found == {
        "40x": {("zpr",)},
        "44x": {("mmucr",)},
        "book3e": {("mas0",)},
        "hash32": {("sdr1",)},
        "hash32-swtlb": {("imiss", "sdr1")},
        "hash64": {("sdr1",), ("ptcr",)},
    }


def test_what_qemu_cannot_create_is_defined_all_the_same(framework: Framework) -> None:
    assert {framework.catalogue("ppc")[name].family for name in FACTS["broken"]} == {"745", "755"}
    everything = FACTS["models"].keys() | set(FACTS["broken"])
    assert everything == MODELS["ppc64"]["models"].keys()


def test_each_has_the_compatibility_modes_that_pseries_takes(framework: Framework) -> None:
    for name, versions in FACTS["compat"].items():
        offered = framework.catalogue("ppc64")[name].identity.get("compat-modes", [])
        assert offered == [mode for mode, version in versions.items() if version], name
        for mode in offered:
            cpu = made(framework, f"{name},compat-mode={mode}")
            assert cpu.cpu_version == int(versions[mode], 16)
            assert cpu.pvr == int(MODELS["ppc64"]["models"][name]["pvr"], 16)
    with_modes = {
        model.name
        for model in framework.catalogue("ppc64")
        if model.alias_of is None and "compat-modes" in model.identity
    }
    assert with_modes <= FACTS["compat"].keys()
    assert set(COMPAT_MODES) == set(next(iter(FACTS["compat"].values())))


def test_the_types_of_cores_are_those_of_the_reference(framework: Framework) -> None:
    cores = MODELS["ppc64"]["cores"]
    for kind in ("spapr", "powernv"):
        ours = {
            f"{model.name}-{kind}-cpu-core"
            for model in framework.catalogue("ppc64")
            if model.alias_of is None and kind in model.identity.get("cores", ())
        }
        assert ours == set(cores[f"{kind}-cpu-core"])


@ARCHS
def test_every_pvr_leads_to_all_models_that_have_it(framework: Framework, arch: str) -> None:
    shared: dict[int, set[str]] = {}
    for name, reference in MODELS[arch]["models"].items():
        shared.setdefault(int(reference["pvr"], 16), set()).add(name)
    for pvr, names in shared.items():
        match = find_by_pvr(framework.catalogue(arch), pvr)
        assert match.exact
        assert {model.name for model in match.models} == names
    several = {f"{pvr:#010x}": names for pvr, names in shared.items() if len(names) > 1}
    expected = {pvr: set(names) for pvr, names in MODELS[arch]["shared_pvrs"].items()}
    assert several == expected
