"""The ID registers of every model, against what QEMU's CPUs show on machines `none` and `virt`."""

from __future__ import annotations

import re
from typing import Any

import pytest
from qemu_arm_reference import (
    ARCHITECTURES,
    LEFT_OUT,
    cpu_class,
    load,
    machine,
    realized,
    reason_to_leave_out,
    registers,
)

from cpufw.errors import CpufwError, ModelError
from cpufw.framework import default
from cpufw_arm.cpu import ArmCPU

IDREGS = load("arm-idregs.json")
MEASURED = load("arm-measured.json")
MODELS = [(arch, model) for arch in ARCHITECTURES for model in IDREGS[arch]]
SHOWN = [
    (arch, model, name)
    for arch, model in MODELS
    for name, answer in IDREGS[arch][model].items()
    if "regs" in answer
]

# What QEMU shows of a CPU that must be among the constants, whatever its value.
IDENTIFICATION = re.compile(
    r"(ID_|MVFR|MIDR|REVIDR|CTR|CLIDR|AIDR|TCMTR|TLBTR|MPUIR|DBGDIDR|DBGDEVID|PMCEID).*"
)


def test_there_are_as_many_models_as_in_the_reference() -> None:
    for arch, count in (("aarch64", 47), ("arm", 36)):
        names = [model.name for model in default().catalogue(arch)]
        assert sorted(names) == sorted(IDREGS[arch])
        assert len(names) == count


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_types_have_the_names_of_the_reference(arch: str) -> None:
    for model, machines in IDREGS[arch].items():
        found = default().find_model(model, arch)
        assert found.type_name == machines["none"].get("qom-type", f"{model}-arm-cpu")
        assert found.arch == found.model.arch == arch


@pytest.mark.parametrize(("arch", "model", "name"), SHOWN)
def test_registers_are_those_of_qemu(arch: str, model: str, name: str) -> None:
    """Each register of the reference: equal, left out by name, or state that is zero at reset."""
    answer = registers(IDREGS[arch][model][name]["regs"])
    ours = realized(name, arch, model).id_registers
    assert ours
    for register, value in answer.items():
        if register in ours:
            assert hex(ours[register]) == hex(value), register
        elif reason_to_leave_out(register) is None:
            assert value == 0, f"{register} is not in id_registers, QEMU shows {value:#x}"
            assert not IDENTIFICATION.fullmatch(register), register


@pytest.mark.parametrize(("arch", "model", "name"), SHOWN)
def test_registers_that_no_debugger_shows_are_those_of_qemu(
    arch: str, model: str, name: str
) -> None:
    """Registers read by instructions: ID_AA64PFR0_EL1, ID_PFR1, MPIDR, CCSIDR and others."""
    ours = realized(name, arch, model).id_registers
    read = registers(MEASURED["plain"][arch][model][name])
    assert {k: hex(ours[k]) for k in read} == {k: hex(v) for k, v in read.items()}
    # And there is nothing that QEMU does not have.
    assert set(ours) <= {*read, *IDREGS[arch][model][name]["regs"]}


@pytest.mark.parametrize(("arch", "model", "name"), SHOWN)
def test_what_is_left_out_is_what_it_is_said_to_be(arch: str, model: str, name: str) -> None:
    answer = registers(IDREGS[arch][model][name]["regs"])
    midr = IDREGS[arch][model][name]["props"]["midr"]
    for register, value in answer.items():
        reason = reason_to_leave_out(register)
        if register.endswith("_S") and IDENTIFICATION.fullmatch(register):
            assert value == answer[register.removesuffix("_S")], register
        elif reason is not None and "reserved" in reason:
            assert value == 0, register
        elif re.fullmatch(r"SCTLR_EL(12|3)", register):
            assert value == answer["SCTLR"], register
        elif re.fullmatch(r"VPIDR(_EL2)?", register):
            assert value == midr, register


def test_reasons_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        for reason, names in LEFT_OUT.items():
            used = {
                register
                for arch, model, name in SHOWN
                for register in IDREGS[arch][model][name]["regs"]
                if re.fullmatch(names, register)
            }
            assert used, f"nothing is left out because it is {reason}"
            shown = ", ".join(sorted(used)[:4]) + (", …" if len(used) > 4 else "")
            print(f"\nnot compared: {shown}: {reason}", end="")


@pytest.mark.parametrize(
    ("arch", "model"), [(a, m) for a, m in MODELS if "error" in IDREGS[a][m]["virt"]]
)
def test_virt_refuses_what_qemu_refuses(arch: str, model: str) -> None:
    with pytest.raises(ModelError, match=re.escape(f"cannot hold {model} ")):
        machine("virt", arch, model)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("model", sorted(MEASURED["m-profile"]))
def test_m_profile_registers_are_those_of_qemu(arch: str, model: str) -> None:
    """Read from memory at 0xe000ed00 on the boards that QEMU has for these cores."""
    answer = registers(MEASURED["m-profile"][model]["registers"])
    assert dict(realized("none", arch, model).id_registers) == answer


SWITCHED: list[tuple[str, str, str]] = [
    (arch, model, settings)
    for arch, models in MEASURED["switched"].items()
    for model, cases in models.items()
    for settings, answer in cases.items()
    if "error" not in answer
]

# QEMU takes these and does without what they ask for; here they are refused with a sentence.
REFUSED = {"sve=off,sme=on", "has_el3=off,x-rme=on"}


def values(settings: str) -> dict[str, Any]:
    return dict(part.split("=") for part in settings.split(","))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_properties_change_registers_as_on_qemu(arch: str) -> None:
    compared = 0
    for case_arch, model, settings in SWITCHED:
        given = values(settings)
        if case_arch != arch or settings in REFUSED:
            continue
        cpu = cpu_class(model, arch)(**given)
        cpu.realize()
        assert isinstance(cpu, ArmCPU)
        answer = registers(MEASURED["switched"][arch][model][settings])
        ours = {**cpu.id_registers}
        ours.setdefault("MIDR", ours.get("MIDR_EL1", 0))
        for name, value in answer.items():
            if reason_to_leave_out(name) is None:
                assert hex(ours.get(name, -1)) == hex(value), (model, settings, name)
        del ours["MIDR"]
        assert set(ours) - {"MIDR_EL1"} <= set(answer), (model, settings)
        compared += 1
    assert compared > 80


def test_what_qemu_refuses_is_refused() -> None:
    """And what it takes without doing it.

    On 32-bit CPUs `vfp=off` takes vfp-d32 and neon along; QEMU wants vfp-d32 to be named.
    """
    refused = 0
    for arch, models in MEASURED["switched"].items():
        for model, cases in models.items():
            for settings, answer in cases.items():
                aarch32 = cpu_class(model, arch).model.identity["isa"] != "armv8-a"
                if aarch32 and settings == "vfp=off,neon=off":
                    cpu_class(model, arch)(**values(settings)).realize()
                elif "error" in answer or settings in REFUSED:
                    with pytest.raises(CpufwError):
                        cpu_class(model, arch)(**values(settings)).realize()
                    refused += 1
    assert refused > 80


def test_m_profile_properties_change_registers_as_on_qemu() -> None:
    compared = 0
    for model, measured in MEASURED["m-profile"].items():
        for settings, answer in measured["switched"].items():
            cpu = cpu_class(model, "arm")(**values(settings))
            cpu.realize()
            assert isinstance(cpu, ArmCPU)
            expected = registers(answer)
            if (model, "vfp=off" in settings) == ("cortex-m55", True):
                # QEMU keeps the integer vector extension's field (MVE); it has no property here.
                assert expected.pop("MVFR1") == 0x200
            ours = cpu.id_registers
            assert {k: hex(ours[k]) for k in expected} == {k: hex(v) for k, v in expected.items()}
            compared += 1
    assert compared == 18


@pytest.mark.parametrize("version", sorted(MEASURED["virt"]))
def test_virt_versions_leave_cpus_as_they_were(version: str) -> None:
    for model, answer in MEASURED["virt"][version].items():
        ours = realized(f"virt-{version}", "aarch64", model).id_registers
        expected = registers(answer)
        for name, value in expected.items():
            assert hex(ours.get(name, -1)) == hex(value), (model, name)


@pytest.mark.parametrize("case", sorted(MEASURED["smp"]))
def test_registers_that_say_how_many_cpus_there_are(case: str) -> None:
    """Cores of a cluster; and beyond eight CPUs the GICv3 and its system registers."""
    arch, model, smp = case.split()
    ours = realized("virt", arch, model, smp=smp).id_registers
    answer = registers(MEASURED["smp"][case])
    assert {k: hex(ours[k]) for k in answer} == {k: hex(v) for k, v in answer.items()}
