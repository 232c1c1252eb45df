"""The I/O APIC in user space: its registers, edges, levels, and which MSIs become of them."""

from __future__ import annotations

from collections.abc import Mapping

from cpufw_x86.devices.ioapic import PINS, Ioapic

MASKED, LEVEL, REMOTE_IRR, LOGICAL = 1 << 16, 1 << 15, 1 << 14, 1 << 11


class Wires:
    """What an I/O APIC sent, and what it told KVM of its routes."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        self.routes: Mapping[int, tuple[int, int]] = {}
        self.ioapic = Ioapic(lambda address, data: self.sent.append((address, data)), self._route)

    def _route(self, routes: Mapping[int, tuple[int, int]]) -> None:
        self.routes = dict(routes)

    def set_register(self, number: int, value: int) -> None:
        self.ioapic.write(0x00, 4, number)
        self.ioapic.write(0x10, 4, value)

    def register(self, number: int) -> int:
        self.ioapic.write(0x00, 4, number)
        return self.ioapic.read(0x10, 4)

    def program(self, pin: int, entry: int) -> None:
        self.set_register(0x11 + 2 * pin, entry >> 32)
        self.set_register(0x10 + 2 * pin, entry & 0xFFFF_FFFF)


def test_registers_at_power_on() -> None:
    wires = Wires()
    assert wires.register(0) == 0
    assert wires.register(1) == (PINS - 1) << 16 | 0x20
    assert [wires.register(0x10 + 2 * pin) for pin in range(PINS)] == [MASKED] * PINS
    assert wires.register(0x10 + 2 * PINS) == 0
    assert wires.routes == {}


def test_id_keeps_four_bits() -> None:
    wires = Wires()
    wires.set_register(0, 0xFFFF_FFFF)
    assert wires.register(0) == 0x0F00_0000


def test_edge_is_one_message() -> None:
    wires = Wires()
    wires.program(4, 3 << 56 | 0x41)
    wires.ioapic.set_irq(4, True)
    wires.ioapic.set_irq(4, True)
    assert wires.sent == [(0xFEE0_3000, 0x4041)]
    wires.ioapic.set_irq(4, False)
    wires.ioapic.set_irq(4, True)
    assert len(wires.sent) == 2


def test_edge_on_a_masked_pin_is_lost() -> None:
    wires = Wires()
    wires.ioapic.set_irq(4, True)
    wires.program(4, 0x41)
    assert wires.sent == []


def test_level_waits_for_its_end_and_comes_again_while_it_is_up() -> None:
    wires = Wires()
    wires.program(9, LEVEL | 0x51)
    wires.ioapic.set_irq(9, True)
    wires.ioapic.set_irq(9, True)
    assert wires.sent == [(0xFEE0_0000, 0xC051)]
    assert wires.register(0x10 + 18) & REMOTE_IRR
    wires.ioapic.eoi(0x50)
    assert len(wires.sent) == 1
    wires.ioapic.eoi(0x51)
    assert len(wires.sent) == 2
    wires.ioapic.set_irq(9, False)
    wires.ioapic.eoi(0x51)
    assert len(wires.sent) == 2
    assert not wires.register(0x10 + 18) & REMOTE_IRR


def test_level_comes_when_it_is_unmasked() -> None:
    wires = Wires()
    wires.program(9, MASKED | LEVEL | 0x51)
    wires.ioapic.set_irq(9, True)
    assert wires.sent == []
    wires.program(9, LEVEL | 0x51)
    assert len(wires.sent) == 1


def test_end_reaches_a_pin_that_was_masked_meanwhile() -> None:
    wires = Wires()
    wires.program(9, LEVEL | 0x51)
    wires.ioapic.set_irq(9, True)
    wires.set_register(0x10 + 18, MASKED | LEVEL | 0x51)
    assert 9 in wires.routes  # or KVM would keep the EOI to itself
    wires.ioapic.eoi(0x51)
    assert not wires.register(0x10 + 18) & REMOTE_IRR
    assert 9 not in wires.routes


def test_eoi_register_and_turning_to_edge_clear_remote_irr() -> None:
    wires = Wires()
    for pin in (9, 10):
        wires.program(pin, LEVEL | 0x51)
        wires.ioapic.set_irq(pin, True)
        wires.ioapic.set_irq(pin, False)
    wires.ioapic.write(0x40, 4, 0x51)
    assert not wires.register(0x10 + 18) & REMOTE_IRR
    wires.ioapic.set_irq(10, True)
    wires.set_register(0x10 + 20, MASKED | 0x51)
    assert not wires.register(0x10 + 20) & REMOTE_IRR


def test_remote_irr_cannot_be_written() -> None:
    wires = Wires()
    wires.program(9, LEVEL | REMOTE_IRR | 0x51)
    assert not wires.register(0x10 + 18) & REMOTE_IRR


def test_destinations() -> None:
    wires = Wires()
    wires.program(1, 0xFF << 56 | LOGICAL | 0x41)
    wires.program(2, 0x2C << 56 | 0x01 << 49 | 0x42)  # APIC id 0x12c = 300
    wires.ioapic.set_irq(1, True)
    wires.ioapic.set_irq(2, True)
    assert wires.sent == [(0xFEEF_F004, 0x4041), (0x100_FEE2_C000, 0x4042)]
    assert wires.routes == {1: wires.sent[0], 2: wires.sent[1]}


def test_ext_int_is_no_message() -> None:
    wires = Wires()
    wires.program(0, 7 << 8 | 0x41)
    wires.ioapic.set_irq(0, True)
    assert wires.sent == []


def test_narrow_reads_and_registers_that_are_not_there() -> None:
    wires = Wires()
    assert wires.register(1) & 0xFF == wires.ioapic.read(0x10, 1)
    wires.ioapic.write(0x20, 4, 0xFFFF_FFFF)
    assert wires.ioapic.read(0x20, 4) == 0


def test_state_goes_into_another() -> None:
    wires, other = Wires(), Wires()
    wires.program(9, LEVEL | 0x51)
    wires.ioapic.set_irq(9, True)
    Ioapic.vmstate.load(other.ioapic, Ioapic.vmstate.save(wires.ioapic))
    assert other.routes == wires.routes
    other.ioapic.eoi(0x51)
    assert other.sent == wires.sent


def test_reset_masks_all_pins_and_keeps_the_lines() -> None:
    wires = Wires()
    wires.program(9, LEVEL | 0x51)
    wires.ioapic.set_irq(9, True)
    wires.ioapic.reset()
    assert wires.routes == {}
    wires.program(9, LEVEL | 0x51)
    assert len(wires.sent) == 2
