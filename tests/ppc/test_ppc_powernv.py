"""The powernv machines: which models and threads they have."""

from __future__ import annotations

import pytest

from cpufw.errors import ModelError, TopologyError
from cpufw.framework import Framework


@pytest.mark.parametrize(
    ("machine_type", "cpu", "model"),
    [
        ("powernv8", None, "power8_v2.0"),
        ("powernv8", "power8e", "power8e_v2.1"),
        ("powernv8", "power8nvl", "power8nvl_v1.0"),
        ("powernv9", None, "power9_v2.2"),
        ("powernv10", None, "power10_v2.0"),
        ("powernv", "power10", "power10_v2.0"),
    ],
)
def test_models(framework: Framework, machine_type: str, cpu: str | None, model: str) -> None:
    with framework.machine(machine_type, cpu=cpu, smp="4,threads=4") as machine:
        assert [each.model.name for each in machine.cpus()] == [model] * 4


@pytest.mark.parametrize(
    ("machine_type", "cpu"),
    [("powernv9", "power8"), ("powernv9", "970"), ("powernv9", "power9_v2.0")],
)
def test_a_model_of_another_chip(framework: Framework, machine_type: str, cpu: str) -> None:
    """As QEMU: invalid CPU model 'power8_v2.0-powerpc64-cpu' for powernv9 machine."""
    with pytest.raises(ModelError, match=r"powernv9 has no chip of CPU model .* its own is power9"):
        framework.machine(machine_type, cpu=cpu)


@pytest.mark.parametrize(
    ("machine_type", "threads"), [("powernv9", 8), ("powernv8", 3), ("powernv8", 16)]
)
def test_threads_that_no_core_has(framework: Framework, machine_type: str, threads: int) -> None:
    with pytest.raises(TopologyError, match=f"no cores of {threads} threads, only a power of 2"):
        framework.machine(machine_type, smp=f"{threads},threads={threads}")
