"""Interrupts on their way when a guest is saved: the guest that goes on gets each of them, once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from guest_compiler import image_of

from cpufw.core.machine import Machine
from cpufw.framework import Framework
from cpufw_x86.kvm import X86VCPU

pytestmark = pytest.mark.kvm

ROUNDS = 6
PATIENCE = 30.0


class Heard:
    """What a guest said, in one machine after the other."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, data: bytes) -> None:
        self.text += data.decode("latin-1")

    def wait_for(self, machine: Machine, word: str, times: int) -> None:
        deadline = monotonic() + PATIENCE
        ended = False
        while len(re.findall(rf"^{word}$", self.text, re.MULTILINE)) < times:
            assert not ended, f"the guest ended without '{word}':\n{self.text}"
            assert monotonic() < deadline, f"no '{word}' for the {times}th time:\n{self.text}"
            ended = machine.wait(0.01).reason != "timeout"  # which also waits for its last words


def press_power_button(machine: Machine) -> None:
    machine.board.powerdown()  # type: ignore[attr-defined]


@pytest.mark.parametrize("irqchip", ["on", "split"])
def test_none_is_lost_and_none_comes_twice(
    framework: Framework, tmp_path: Path, irqchip: str
) -> None:
    """From another CPU, the APIC's timer and a line that stays up, all with interrupts off."""
    heard, path = Heard(), tmp_path / "guest.snap"
    image = image_of("inflight", f"rounds={ROUNDS}")
    options = {"cpu": "Haswell,check=off", "smp": "2", "memory": "16M", "kernel": image}
    machine = framework.machine("pc", serial=heard, kernel_irqchip=irqchip, **options)
    try:
        machine.start()
        for count in range(1, ROUNDS + 1):
            heard.wait_for(machine, "held", count)
            press_power_button(machine)
            machine.pause()
            machine.save(path)
            machine.close()
            machine = framework.load_machine(path, serial=heard)
            machine.start()
            machine.board.type_text(b"x")  # type: ignore[attr-defined]
            heard.wait_for(machine, "came", count)
        assert machine.wait(PATIENCE).reason == "exit"
        assert "\nok nothing_is_lost" in heard.text
    finally:
        machine.close()


@pytest.mark.parametrize("irqchip", ["on", "split"])
def test_one_that_comes_while_the_guest_is_being_saved(
    framework: Framework, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, irqchip: str
) -> None:
    """The button is pressed between any two parts of the interrupt controllers' state."""
    heard, path = Heard(), tmp_path / "guest.snap"
    image = image_of("inflight", "buttons presses=4")
    options = {"cpu": "Haswell,check=off", "smp": "2", "memory": "16M", "kernel": image}
    machine = framework.machine("pc", serial=heard, kernel_irqchip=irqchip, **options)
    try:
        machine.start()
        heard.wait_for(machine, "waiting", 1)
        for count, method in enumerate(("get_mp_state", "get_lapic"), start=1):
            machine.pause()
            with monkeypatch.context() as patch:
                patch.setattr(X86VCPU, method, pressing(machine, getattr(X86VCPU, method)))
                machine.save(path)
            machine.close()
            machine = framework.load_machine(path, serial=heard)
            machine.start()
            heard.wait_for(machine, "button", 2 * count - 1)
            press_power_button(machine)  # the line is not stuck
            heard.wait_for(machine, "button", 2 * count)
        assert machine.wait(PATIENCE).reason == "exit"
    finally:
        machine.close()


def pressing(machine: Machine, read: Callable[[X86VCPU], object]) -> Callable[[X86VCPU], object]:
    """Read as ever, and press the button behind it, once."""
    pressed: list[bool] = []

    def then_press(vcpu: X86VCPU) -> object:
        result = read(vcpu)
        if not pressed:
            pressed.append(True)
            press_power_button(machine)
        return result

    return then_press
