"""PCI configuration space as a guest walks it: one host bridge, nothing else."""

from __future__ import annotations

import pytest

from cpufw_x86.devices import MmioBus, PciEcam, PciHost, PortBus, ResetControl


class Bench:
    def __init__(self) -> None:
        self.resets = 0
        self.bus, self.pci = PortBus(), PciHost()
        self.bus.add(self.pci)
        self.bus.add(ResetControl(self._reset))

    def _reset(self) -> None:
        self.resets += 1

    def select(self, device: int, register: int, *, bus: int = 0, function: int = 0) -> int:
        """The data port of the register."""
        address = 1 << 31 | bus << 16 | device << 11 | function << 8 | register & 0xFC
        self.bus.write(0xCF8, 4, address)
        return 0xCFC + (register & 3)

    def read(self, register: int, size: int, **where: int) -> int:
        return self.bus.read(self.select(where.pop("device", 0), register, **where), size)

    def write(self, register: int, size: int, value: int) -> None:
        self.bus.write(self.select(0, register), size, value)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_mechanism_1_is_found(bench: Bench) -> None:
    bench.bus.write(0xCF8, 4, 0x80000000)
    assert bench.bus.read(0xCF8, 4) == 0x80000000


def test_host_bridge_is_the_only_function(bench: Bench) -> None:
    found = [
        (bus, device, function)
        for bus in (0, 1, 255)
        for device in range(32)
        for function in range(8)
        if bench.read(0, 4, bus=bus, device=device, function=function) != 0xFFFFFFFF
    ]
    assert found == [(0, 0, 0)]


def test_host_bridge_says_what_it_is(bench: Bench) -> None:
    assert bench.read(0x00, 4) == 0x12378086
    assert bench.read(0x0A, 2) == 0x0600, "class: host bridge"
    assert bench.read(0x0E, 1) & 0x7F == 0, "an ordinary header"
    assert bench.read(0x2C, 4) == 0x11001AF4, "SeaBIOS takes this for QEMU"


@pytest.mark.parametrize("register", [*range(0x10, 0x28, 4), 0x30])
def test_no_base_address_register(bench: Bench, register: int) -> None:
    bench.write(register, 4, 0xFFFFFFFF)
    assert bench.read(register, 4) == 0


def test_identity_cannot_be_written(bench: Bench) -> None:
    bench.write(0, 4, 0xDEADBEEF)
    assert bench.read(0, 4) == 0x12378086


def test_shadow_ram_registers_keep_what_they_can(bench: Bench) -> None:
    assert bench.read(0x59, 1) == 0, "firmware copies itself into RAM then"
    bench.write(0x59, 1, 0x30)
    bench.write(0x5A, 2, 0xFFFF)
    assert bench.read(0x59, 1) == 0x30
    assert bench.read(0x5A, 2) == 0x3333
    bench.pci.reset()
    assert bench.read(0x59, 1) == 0


def test_disabled_address_reads_all_ones(bench: Bench) -> None:
    bench.bus.write(0xCF8, 4, 0)
    assert bench.bus.read(0xCFC, 2) == 0xFFFF
    bench.bus.write(0xCFC, 4, 0)


def test_bytes_at_the_address_register_are_the_reset_registers(bench: Bench) -> None:
    bench.select(0, 0x2C)
    bench.bus.write(0xCF8, 1, 0)
    bench.bus.write(0xCF9, 1, 0x06)
    assert bench.resets == 1
    assert bench.bus.read(0xCFC, 4) == 0x11001AF4, "the address is as it was"


def test_state_survives_a_save_between_address_and_data(bench: Bench) -> None:
    bench.write(0x59, 1, 0x10)
    bench.select(0, 0x58)
    other = Bench()
    PciHost.vmstate.load(other.pci, PciHost.vmstate.save(bench.pci))
    assert other.bus.read(0xCFD, 1) == 0x10


def test_configuration_space_as_memory(bench: Bench) -> None:
    memory = MmioBus()
    memory.add(PciEcam(bench.pci))
    assert memory.read(0xE0000000, 4) == 0x12378086
    assert memory.read(0xE0000100, 4) == 0, "no capabilities beyond the 256 bytes"
    assert memory.read(0xE0000FFE, 4) == 0
    memory.write(0xE0000059, 1, 0x30)
    assert bench.read(0x59, 1) == 0x30
    for function in (1, 8, 0xFF):
        memory.write(0xE0000000 + (function << 12), 4, 0)
        assert memory.read(0xE0000000 + (function << 12), 4) == 0xFFFFFFFF
