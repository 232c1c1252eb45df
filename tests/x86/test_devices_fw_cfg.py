"""fw_cfg, read by bytes as kvm-unit-tests does and by DMA as firmware does."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cpufw.errors import CpufwError, UsageError
from cpufw_x86.devices import (
    E820_FILE,
    FwCfg,
    PortBus,
    cpu_count_item,
    kernel_items,
    machine_items,
    parse_fw_cfg,
)

RAM_BYTES = 4 << 20
ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
DIRECTORY = 0x19


class Bench:
    def __init__(self) -> None:
        self.ram = bytearray(RAM_BYTES)
        self.bus = PortBus()
        items = machine_items(RAM_BYTES, 3, 17, irq0_override=True)
        self.fw_cfg = FwCfg(items, read_memory=self._read, write_memory=self._write)
        self.bus.add(self.fw_cfg)

    def _read(self, address: int, length: int) -> bytes:
        return bytes(self.ram[address : address + length])

    def _write(self, address: int, data: bytes) -> None:
        if address + len(data) > RAM_BYTES:
            raise CpufwError("no RAM there")
        self.ram[address : address + len(data)] = data

    def item(self, key: int, length: int) -> bytes:
        self.bus.write(0x510, 2, key)
        return bytes(self.bus.read(0x511, 1) for _ in range(length))

    def files(self) -> dict[str, tuple[int, int]]:
        """Key and length by name."""
        (count,) = struct.unpack(">I", self.item(DIRECTORY, 4))
        found = {}
        for _ in range(count):
            entry = bytes(self.bus.read(0x511, 1) for _ in range(64))
            length, key, _, name = struct.unpack(">IHH56s", entry)
            found[name.rstrip(b"\0").decode()] = (key, length)
        return found

    def dma(self, control: int, length: int, address: int, at: int = 0x1000) -> int:
        """The control word afterwards."""
        access = struct.pack(">IIQ", control, length, address)
        if at + len(access) <= RAM_BYTES:
            self.ram[at : at + len(access)] = access
        for port, half in ((0x514, at >> 32), (0x518, at & 0xFFFFFFFF)):
            self.bus.write(port, 4, int.from_bytes(half.to_bytes(4, "big"), "little"))
        return int.from_bytes(self.ram[at : at + 4], "big")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_interface_is_found(bench: Bench) -> None:
    assert bench.item(0, 4) == b"QEMU"
    assert bench.item(1, 4) == b"\x03\0\0\0", "by bytes and by DMA"
    dma = b"".join(bench.bus.read(port, 4).to_bytes(4, "little") for port in (0x514, 0x518))
    assert dma == b"QEMU CFG"


def test_machine(bench: Bench) -> None:
    assert bench.item(0x03, 8) == RAM_BYTES.to_bytes(8, "little")
    assert bench.item(0x05, 2) == b"\x03\0", "CPUs at the start"
    assert bench.item(0x0F, 2) == b"\x11\0", "APIC ids below this"
    bench.fw_cfg.put(*cpu_count_item(2))
    assert bench.item(0x05, 2) == b"\x02\0"


def test_reads_go_on_and_end_in_zeros(bench: Bench) -> None:
    assert bench.item(0, 6) == b"QEMU\0\0"
    assert bench.item(0x3FFF, 2) == b"\0\0", "an item that is not there"


def test_files_are_listed_by_name(bench: Bench) -> None:
    bench.fw_cfg.add_file("opt/b", b"later")
    bench.fw_cfg.add_file(E820_FILE, b"map")
    bench.fw_cfg.add_file("opt/a", b"")
    files = bench.files()
    assert list(files) == ["etc/e820", "opt/a", "opt/b"]
    assert all(key >= 0x20 for key, _ in files.values())
    assert bench.item(*files["opt/b"]) == b"later"
    assert bench.item(*files["etc/e820"]) == b"map"


@pytest.mark.parametrize("name", ["", "x" * 56, "opt/ü", "opt/\n"])
def test_file_names_that_the_directory_cannot_hold(bench: Bench, name: str) -> None:
    with pytest.raises(UsageError, match="is not valid, expected 1 to 55 printable"):
        bench.fw_cfg.add_file(name, b"")


def test_two_files_of_one_name(bench: Bench) -> None:
    bench.fw_cfg.add_file("opt/a", b"")
    with pytest.raises(UsageError, match="'opt/a' already"):
        bench.fw_cfg.add_file("opt/a", b"")


def test_dma_reads_and_skips(bench: Bench) -> None:
    bench.fw_cfg.add_file("opt/a", b"0123456789")
    key, _ = bench.files()["opt/a"]
    assert bench.dma(key << 16 | SELECT | SKIP, 2, 0) == 0
    assert bench.dma(READ, 4, 0x2000) == 0
    assert bench.ram[0x2000:0x2005] == b"2345\0"
    bench.ram[0x2000:0x2010] = b"x" * 16
    assert bench.dma(READ, 10, 0x2000) == 0
    assert bench.ram[0x2000:0x2010] == b"6789\0\0\0\0\0\0xxxxxx", "zeros after the end"


@pytest.mark.parametrize(
    ("control", "length", "address"),
    [
        (READ, 16, RAM_BYTES - 8),
        (READ, 0xFFFFFFFF, 0x2000),
        (READ, 1, (1 << 64) - 1),
        (WRITE, 4, 0x2000),
    ],
)
def test_dma_that_cannot_be_done_says_so(
    bench: Bench, control: int, length: int, address: int
) -> None:
    assert bench.dma(control, length, address) == ERROR


@pytest.mark.parametrize("at", [RAM_BYTES - 8, RAM_BYTES, 1 << 40, (1 << 64) - 8])
def test_dma_described_outside_ram_does_nothing(bench: Bench, at: int) -> None:
    before = bytes(bench.ram)
    bench.dma(READ | SELECT, 4, 0x2000, at)
    assert bench.ram == before


def test_items_cannot_be_written(bench: Bench) -> None:
    bench.bus.write(0x510, 2, 0x4000)
    bench.bus.write(0x511, 1, 0x58)
    assert bench.item(0, 4) == b"QEMU"
    assert bench.item(0x4000, 4) == b"QEMU", "the write channel of the same item"


def test_state_survives_a_save_within_an_item(bench: Bench) -> None:
    bench.item(0, 2)
    other = Bench()
    FwCfg.vmstate.load(other.fw_cfg, FwCfg.vmstate.save(bench.fw_cfg))
    assert bytes(other.bus.read(0x511, 1) for _ in range(2)) == b"MU"
    other.fw_cfg.reset()
    assert bytes(other.bus.read(0x511, 1) for _ in range(2)) == b"QE"


def test_bzimage_is_given_in_two_parts() -> None:
    header = bytearray(0x400)
    header[0x1F1] = 1
    header[0x202:0x206] = b"HdrS"
    items = kernel_items(bytes(header) + b"kernel", b"disk", "quiet")
    assert items[0x18] == header
    assert (items[0x08], items[0x11]) == (b"\x06\0\0\0", b"kernel")
    assert (items[0x0B], items[0x12]) == (b"\x04\0\0\0", b"disk")
    assert (items[0x14], items[0x15]) == (b"\x06\0\0\0", b"quiet\0")
    assert kernel_items(b"\x7fELF", b"", "")[0x11] == b"\x7fELF"


def test_users_files(tmp_path: Path) -> None:
    path = tmp_path / "with,comma"
    path.write_bytes(b"\0\xff")
    assert parse_fw_cfg(f"name=opt/x,file={tmp_path}/with,,comma") == ("opt/x", b"\0\xff")
    assert parse_fw_cfg("opt/x,string=a=b,,c") == ("opt/x", b"a=b,c")
    assert parse_fw_cfg("opt/x,string=") == ("opt/x", b"")


@pytest.mark.parametrize(
    "text", ["", "opt/x", "opt/x,text=y", "name=,string=y", "opt/x,string=a,b", "opt/x,string", ","]
)
def test_users_files_that_are_not_well_said(text: str) -> None:
    with pytest.raises(UsageError, match="expected name=opt/NAME,file=PATH or"):
        parse_fw_cfg(text)


@pytest.mark.parametrize("path", ["missing", ".", "/dev/zero"])
def test_users_files_that_cannot_be_read(tmp_path: Path, path: str) -> None:
    with pytest.raises(UsageError, match=r"fw_cfg item opt/x: .* is not a file"):
        parse_fw_cfg(f"opt/x,file={tmp_path / path}")
