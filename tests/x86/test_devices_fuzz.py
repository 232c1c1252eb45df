"""A guest that writes and reads every port and MMIO address at random harms nobody."""

from __future__ import annotations

import random
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from cpufw.errors import CpufwError, HotplugError
from cpufw_x86.devices import (
    I8042,
    AcpiPm,
    CpuHotplugBlock,
    DebugConsole,
    DebugExit,
    FwCfg,
    MmioBus,
    PciEcam,
    PciHost,
    Port92,
    PortBus,
    ResetControl,
    Rtc,
    Testdev,
    TestdevMemory,
    cmos_contents,
    machine_items,
)

ACCESSES = 200_000
MOST_MEMORY = 16 << 20  # what a DMA takes at once, and more
RAM_BYTES = 1 << 20
VALUES = (0, 1, 0x80, 0xFE, 0xFF, 0x06, 0x80000000, 0xFFFFFFFF, 0x00100000)


class Board:
    """Every device, with the lines and the calls to the board that they have checked."""

    def __init__(self) -> None:
        self.ram = bytearray(RAM_BYTES)
        self.ports, self.mmio = PortBus(), MmioBus()
        self.events = 0
        self.pm = AcpiPm(self._line, self._event)
        self.hotplug = CpuHotplugBlock(
            [0, 2, 5],
            raise_gpe=self.pm.raise_gpe,
            on_ost=lambda _slot, _event, _status: self._event(),
            on_eject=lambda _slot: self._event(),
        )
        self.rtc = Rtc(self._line, cmos_contents(RAM_BYTES, 0, 1))
        fw_cfg = FwCfg(
            machine_items(RAM_BYTES, 1, 1, irq0_override=False),
            read_memory=lambda address, length: bytes(self.ram[address : address + length]),
            write_memory=self._write,
        )
        pci = PciHost()
        self.mmio.add(PciEcam(pci))
        fw_cfg.add_file("opt/large", bytes(1 << 21))
        self.devices = (
            self.pm,
            self.hotplug,
            self.rtc,
            fw_cfg,
            I8042(self._event, self._line),
            Port92(self._event),
            ResetControl(self._event),
            pci,
            Testdev(lambda number, level: self._line(level and number < 24)),
            DebugExit(lambda _status: self._event()),
            DebugConsole(lambda _data: self._event()),
            DebugConsole(lambda _data: self._event(), 0x402),
        )
        for device in self.devices:
            self.ports.add(device)
        self.mmio.add(TestdevMemory())
        self.known = [
            port
            for device in self.devices
            for ports in ([device.ports] if isinstance(device.ports, range) else device.ports)
            for port in ports
        ]

    def _write(self, address: int, data: bytes) -> None:
        if address + len(data) > RAM_BYTES:
            raise CpufwError("no RAM there")
        self.ram[address : address + len(data)] = data

    def _line(self, level: bool) -> None:
        assert isinstance(level, bool)

    def _event(self) -> None:
        self.events += 1

    def access(self, random: random.Random) -> None:
        kind = random.random()
        if kind < 0.1:
            near = random.choice(
                (0xE0000050, 0xE00FFFF8, 0xFEFFFFF8, 0xFF000000, 0xFF00FFF8, random.getrandbits(52))
            )
            address, size = near + random.randrange(16), random.randint(1, 8)
            if random.getrandbits(1):
                self.mmio.write(address, size, random.getrandbits(8 * size))
            else:
                assert 0 <= self.mmio.read(address, size) < 1 << 8 * size
            return
        port = random.choice(self.known) if kind < 0.9 else random.getrandbits(16)
        size = random.choice((1, 1, 2, 4))
        if random.getrandbits(1):
            value = random.choice(VALUES) if random.getrandbits(1) else random.getrandbits(32)
            self.ports.write(port, size, value & (1 << 8 * size) - 1)
        else:
            assert 0 <= self.ports.read(port, size) < 1 << 8 * size


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board()
    yield made
    made.rtc.close()


@pytest.fixture
def seed() -> int:
    """Another one each time; a test that fails shows it."""
    value = random.SystemRandom().getrandbits(32)
    print(f"seed {value}")
    return value


def test_no_access_raises_and_memory_stays_bounded(board: Board, seed: int) -> None:
    source = random.Random(seed)
    tracemalloc.start()
    try:
        for _ in range(ACCESSES // 10):
            board.access(source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
    for _ in range(ACCESSES):
        board.access(source)
    assert board.events
    assert sum(thread.name == "rtc" for thread in threading.enumerate()) <= 1
    for device in board.devices:
        state = getattr(device, "vmstate", None)
        if state is not None:
            state.load(device, state.save(device))


def test_several_vcpus_at_once(board: Board, seed: int) -> None:
    failures: list[BaseException] = []

    def guest(number: int) -> None:
        source = random.Random(seed + number)
        try:
            for _ in range(ACCESSES // 20):
                board.access(source)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=guest, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    with pytest.raises(HotplugError):
        board.hotplug.flags(3)
