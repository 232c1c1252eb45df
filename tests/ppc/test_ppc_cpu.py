"""PowerPC CPUs: names in any case, compatibility modes, PVRs, and how they compare."""

from __future__ import annotations

import pytest

from cpufw.core.algebra import Relation
from cpufw.errors import CpufwError, ModelError, NotFoundError
from cpufw.framework import Framework
from cpufw_ppc.cpu import PPCCPU
from cpufw_ppc.pvr import find_by_pvr
from cpufw_ppc.rules import PPCRules


def expanded(framework: Framework, text: str) -> set[str]:
    return set(framework.cpu(text, "ppc64").expand().features)


# --- names -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["POWER9", "Power9", "power9", "POWER9_V2.2"])
def test_case_does_not_matter(framework: Framework, name: str) -> None:
    cpu_class = framework.find_model(name)
    assert cpu_class.type_name == "power9_v2.2-powerpc64-cpu"
    assert cpu_class.arch == "ppc64"


def test_a_type_of_another_case_is_the_same_class(framework: Framework) -> None:
    upper = framework.cpu_class("POWER9_v2.2-powerpc64-cpu")
    assert upper is framework.cpu_class("power9_v2.2-powerpc64-cpu")


def test_an_alias_is_no_type(framework: Framework) -> None:
    with pytest.raises(NotFoundError, match=r"power9_v2\.2-powerpc64-cpu"):
        framework.cpu_class("power9-powerpc64-cpu")


def test_case_matters_elsewhere(framework: Framework) -> None:
    with pytest.raises(NotFoundError, match="did you mean Haswell"):
        framework.find_model("HASWELL")


def test_32_bit_models_are_of_both_architectures(framework: Framework) -> None:
    narrow, wide = (framework.find_model("g4", arch) for arch in ("ppc", "ppc64"))
    assert narrow.type_name == "7400_v2.9-powerpc-cpu"
    assert wide.type_name == "7400_v2.9-powerpc64-cpu"
    with pytest.raises(NotFoundError, match="'power9' is not known"):
        framework.find_model("power9", "ppc")


def test_an_unknown_model_offers_the_nearest(framework: Framework) -> None:
    with pytest.raises(NotFoundError, match=r"did you mean .*power9"):
        framework.find_model("power99")


# --- compatibility modes -----------------------------------------------------------------


def test_a_mode_hides_what_came_after_it(framework: Framework) -> None:
    power10 = expanded(framework, "power10")
    assert expanded(framework, "power10,compat-mode=power10") == power10
    assert power10 - expanded(framework, "power10,compat-mode=power9") == {"arch_3_1", "mma"}
    assert expanded(framework, "power10,compat-mode=power9") == expanded(framework, "power9")
    assert expanded(framework, "power10,compat-mode=power8") == expanded(framework, "power8")
    assert expanded(framework, "power10,compat-mode=power7") == expanded(framework, "power7")
    assert expanded(framework, "power7,compat-mode=power6") == {"ppc64", "altivec", "fpu", "isel"}


def test_in_a_mode_the_guest_is_told_the_logical_pvr(framework: Framework) -> None:
    cpu = framework.cpu("power9,compat-mode=power8")
    assert isinstance(cpu, PPCCPU)
    cpu.realize()
    assert (cpu.pvr, cpu.cpu_version) == (0x004E1202, 0x0F000004)
    power8 = framework.cpu("power8")
    assert isinstance(power8, PPCCPU)
    power8.realize()
    assert (cpu.hwcap, cpu.hwcap2) == (power8.hwcap, power8.hwcap2)
    cpu.unrealize()
    assert (cpu.pvr, cpu.cpu_version, cpu.hwcap) == (None, None, None)


def test_another_revision_of_the_family_may_be_asked_for(framework: Framework) -> None:
    cpu = framework.cpu("power9,pvr=0x004e1203")
    assert isinstance(cpu, PPCCPU)
    cpu.realize()
    assert cpu.pvr == cpu.cpu_version == 0x004E1203


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "power8,compat-mode=power9",
            "power8_v2.0 has no compatibility mode power9; it has power6, power7, power8",
        ),
        ("970,compat-mode=power6", "970_v2.2 has no compatibility mode power6; it has none"),
        ("g4,compat-mode=power6", "it has none"),
        (
            "power9,compat-mode=powr8",
            "compatibility mode 'powr8' is not known; did you mean power8?",
        ),
        ("power9,compat-mode=x", "expected one of power6, power7, power7+, power8"),
        (
            "power9,+darn,compat-mode=power8",
            "power9_v2.2: darn cannot be had in compatibility mode power8; drop +darn or the mode",
        ),
        ("power9,pvr=0x00801200", "pvr 0x00801200 is not of family POWER9"),
        ("power9,-fpu,+vsx", "vsx requires"),
        ("power7,+mma", "mma requires"),
        ("power9,pvr=0x1004e1200", "out of range"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(
    framework: Framework, text: str, message: str
) -> None:
    with pytest.raises(CpufwError) as caught:
        framework.cpu(text, "ppc64").realize()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- from a PVR to a model ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("pvr", "family", "models"),
    [
        (0x004E1203, "POWER9", ["power9_v2.2"]),
        (0x004E1201, "POWER9", ["power9_v2.0"]),
        (0x00800100, "POWER10", ["power10_v2.0"]),
        (0x00083215, "750cx", ["750cxe_v2.4b"]),
        (0x00083209, "745", ["745_v2.8", "755_v2.8"]),
        (0x80210031, "e500v2", ["e500v2_v30", "mpc8572", "mpc8572e"]),
    ],
)
def test_an_unknown_revision_leads_to_the_nearest_of_its_family(
    framework: Framework, pvr: int, family: str, models: list[str]
) -> None:
    match = find_by_pvr(framework.catalogue("ppc64"), pvr)
    assert (match.exact, match.family) == (False, family)
    assert [model.name for model in match.models] == models


def test_a_pvr_of_no_family_names_the_nearest(framework: Framework) -> None:
    message = "PVR '0x004f0100' is not known; the nearest family is POWER9 .0x004e0000, mask"
    with pytest.raises(NotFoundError, match=message):
        find_by_pvr(framework.catalogue("ppc64"), 0x004F0100)


@pytest.mark.parametrize(
    ("pvr", "message"),
    [
        (0x0F000004, "stands for compatibility mode power8, not for a processor"),
        (1 << 32, "does not fit into 32 bits"),
        (-1, "does not fit into 32 bits"),
    ],
)
def test_what_is_no_processors_pvr_is_said(framework: Framework, pvr: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_by_pvr(framework.catalogue("ppc64"), pvr)


# --- how they compare --------------------------------------------------------------------


def relation(framework: Framework, a: str, b: str) -> tuple[Relation, tuple[str, ...]]:
    first, second = (framework.cpu(text, "ppc64").expand().identity for text in (a, b))
    return PPCRules().compare_identity(first, second)


@pytest.mark.parametrize(
    ("a", "b", "expected", "names"),
    [
        ("power9", "power9", Relation.IDENTICAL, ()),
        ("power9", "power8", Relation.SUPERSET, ("pvr",)),
        ("power8", "power9", Relation.SUBSET, ("pvr",)),
        ("power9,compat-mode=power8", "power8", Relation.IDENTICAL, ("pvr", "compat-mode")),
        ("power10,compat-mode=power8", "power9", Relation.SUBSET, ("pvr", "compat-mode")),
        ("power8", "power8nvl", Relation.IDENTICAL, ("pvr",)),
        ("power7,compat-mode=power7+", "power8", Relation.INCOMPATIBLE, ("pvr", "compat-mode")),
        ("power8", "power7", Relation.SUPERSET, ("pvr",)),
        ("750_v3.1", "750_v2.0", Relation.SUPERSET, ("pvr",)),
        ("750_v2.0", "740_v2.0", Relation.IDENTICAL, ()),
        ("750cxe_v2.4b", "755_v2.0", Relation.INCOMPATIBLE, ("pvr",)),
        ("970", "power9", Relation.INCOMPATIBLE, ("pvr",)),
        ("g4", "g3", Relation.INCOMPATIBLE, ("pvr",)),
        ("e500mc", "g4", Relation.INCOMPATIBLE, ("mmu", "pvr")),
    ],
)
def test_identities_compare(
    framework: Framework, a: str, b: str, expected: Relation, names: tuple[str, ...]
) -> None:
    assert relation(framework, a, b) == (expected, names)
    assert relation(framework, b, a) == (expected.mirror, names)


@pytest.mark.parametrize(
    ("texts", "pvr", "mode"),
    [
        (["power10", "power8", "power9"], 0x004D0200, None),
        (["power8", "power7,compat-mode=power7+"], 0x003F0203, "power7"),
        (["power9", "power10,compat-mode=power7"], 0x00801200, "power7"),
        (["750_v3.1", "750_v2.0", "750_v3.0"], 0x00080200, None),
    ],
)
def test_the_common_identity_runs_wherever_each_can(
    framework: Framework, texts: list[str], pvr: int, mode: str | None
) -> None:
    rules = PPCRules()
    identities = [framework.cpu(text, "ppc64").expand().identity for text in texts]
    common = rules.common_identity(identities)
    assert (common["pvr"], common.get("compat-mode")) == (pvr, mode)
    for each in identities:
        assert rules.compare_identity(each, common)[0] in (Relation.SUPERSET, Relation.IDENTICAL)


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["970", "power9"], "pvr: 0x00390202, 0x004e1202"), (["g4", "e500"], "mmu: book3e, hash32")],
)
def test_what_has_nothing_in_common_is_said(
    framework: Framework, texts: list[str], message: str
) -> None:
    identities = [framework.cpu(text, "ppc64").expand().identity for text in texts]
    with pytest.raises(ModelError, match=message):
        PPCRules().common_identity(identities)
