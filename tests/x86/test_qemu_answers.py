"""CPUID, leaf by leaf, against QEMU 10.0.2: every model, topologies, machine types, settings."""

from __future__ import annotations

from functools import cache

import pytest
from qemu_answers import Answers, answers, asked_leaves
from qemu_corrections import ZERO, corrected, in_range, repeated
from qemu_reference import load

from cpufw.framework import Framework
from cpufw_x86.cpuid import CpuidTable

KVM_LEAVES = {0x40000000, 0x40000001}  # QEMU showed TCG's signature there


@cache
def framework() -> Framework:
    return Framework(user=False)


def tables(case: Answers, machine: str) -> dict[int, CpuidTable]:
    """Our CPUID by APIC id, on the CPUs that were asked."""
    model, *settings = case.cpu.split(",")
    cpu = ",".join([model, "vme=off", *settings])  # TCG turns it off in every model
    smp = f"1,{case.smp},maxcpus={case.total}"
    found = {}
    with framework().machine(machine, cpu=cpu, smp=smp, accel=None) as built:
        for index in case.slots:
            slot = built.slots[index]
            if slot.cpu is None:
                ids = {name.replace("-", "_"): at for name, at in slot.id.props().items()}
                built.device_add(built.cpu_class.type_name, **ids)
            found[slot.arch_id] = slot.cpu.cpuid  # type: ignore[union-attr]
    return found


def differences(case: Answers, machine: str) -> dict[str, tuple[str, str]]:
    """Ours and QEMU's, for each leaf of each CPU that differs."""
    found = {}
    threads = case.total // case.counts.get("sockets", 1)
    for apic_id, table in tables(case, machine).items():
        raw = case.of(apic_id)
        expected = corrected(raw, threads, apic_id)
        for leaf in asked_leaves():
            if leaf[0] in KVM_LEAVES:
                continue
            theirs = expected.get(leaf, ZERO)
            if not in_range(leaf[0], raw):
                highest = repeated(leaf, raw)
                if highest in expected and expected[highest] != raw.get(highest, ZERO):
                    theirs = expected[highest]
            ours = table.lookup(*leaf)
            if ours != theirs:
                found[f"{leaf[0]:#x}.{leaf[1]} of APIC id {apic_id}"] = text(ours), text(theirs)
    return found


def text(registers: tuple[int, ...]) -> str:
    return " ".join(f"{register:08x}" for register in registers)


def names() -> list[str]:
    """Every model but `max` and `host`, which are what the accelerator gives."""
    return sorted(load("x86-models")["models"].keys() - {"max", "host"})


@pytest.mark.parametrize("model", names())
def test_cpuid_is_qemus(model: str) -> None:
    asked = [case for case in answers() if case.cpu.split(",")[0] == model]
    different = {
        (machine, case.cpu, case.smp): found
        for case in asked
        for machine in case.machines
        if (found := differences(case, machine))
    }
    assert len(asked) >= 3  # alone and in two topologies at least
    assert different == {}


def test_every_machine_type_was_asked() -> None:
    machines = {machine for case in answers() for machine in case.machines}
    assert machines - {"q35"} == load("x86-machines")["machines"].keys() - {"none", "x-remote"}
