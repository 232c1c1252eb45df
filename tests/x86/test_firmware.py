"""SeaBIOS as Debian ships it: it finds the machine, takes its ACPI tables, looks for a disk."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from guest_programs import Program

from cpufw.core.machine import Machine
from cpufw.framework import Framework

pytestmark = pytest.mark.kvm

SEABIOS = Path("/usr/share/seabios")
AT_THE_END = b"No bootable device."
SECONDS = 90  # on a busy host without VMX and SVM; 2 on an idle one
MEMORY = 64 << 20
F_SEGMENT = 0xF0000


class Screen:
    """What the firmware prints on COM1 and on its debug console."""

    def __init__(self) -> None:
        self.text = b""
        self._changed = threading.Condition()

    def print(self, data: bytes) -> None:
        with self._changed:
            self.text += data
            self._changed.notify_all()

    def wait_for(self, text: bytes, times: int = 1) -> None:
        with self._changed:
            seen = self._changed.wait_for(lambda: self.text.count(text) >= times, SECONDS)
        assert seen, f"{text!r} was not printed {times} times:\n{self.text.decode('latin-1')}"


def firmware(name: str) -> Path:
    path = SEABIOS / name
    if not path.is_file():
        pytest.skip(f"{path} is missing: install Debian's seabios")
    return path


def rsdp(machine: Machine) -> bytes:
    """The root pointer that an operating system would find (ACPI 6.5, 5.2.5.1)."""
    segment = machine.board.ram.read(F_SEGMENT, 0x10000)  # type: ignore[attr-defined]
    found = [at for at in range(0, len(segment), 16) if segment[at : at + 8] == b"RSD PTR "]
    assert len(found) == 1
    return bytes(segment[found[0] : found[0] + 36])


def test_seabios_boots_until_it_has_nothing_to_boot(framework: Framework) -> None:
    screen = Screen()
    with framework.machine(
        "pc", smp="2", memory=MEMORY, firmware=firmware("bios-256k.bin"), serial=screen.print
    ) as machine:
        machine.start()
        screen.wait_for(AT_THE_END)
        machine.stop()
        pointer = rsdp(machine)
        (tables,) = (
            each
            for each in machine.board.guest.memory_map.firmware_ranges()  # type: ignore[attr-defined]
            if each.address < MEMORY and each.type == 2
        )
        xsdt = int.from_bytes(pointer[24:32], "little")
        signature = machine.board.ram.read(xsdt, 4)  # type: ignore[attr-defined]
    said = screen.text.decode("latin-1")
    assert "SeaBIOS (version " in said
    assert "Found 2 cpu(s)" in said
    assert "Booting from Hard Disk..." in said
    assert sum(pointer) % 256 == 0
    assert signature == b"XSDT"
    assert tables.address <= xsdt < tables.end == MEMORY
    e820 = [
        (int(start, 16), int(end, 16), int(kind))
        for start, end, kind in re.findall(r"\d+: (\w{16}) - (\w{16}) = (\d) ", said)
    ]
    assert (0x100000, tables.address, 1) in e820
    assert (tables.address, tables.end, 2) in e820


def test_seabios_boots_again_after_a_reset(framework: Framework) -> None:
    screen = Screen()
    with framework.machine(
        "pc", memory=MEMORY, firmware=firmware("bios.bin"), serial=screen.print
    ) as machine:
        machine.start()
        screen.wait_for(b"Relocating init")
        machine.reset()
        screen.wait_for(AT_THE_END)
        assert screen.text.count(b"Relocating init") == 2
        assert rsdp(machine)


def test_seabios_boots_a_virtio_disk(framework: Framework, tmp_path: Path) -> None:
    """The larger image finds virtio-mmio devices in the ACPI tables, so in cpufw's own."""
    sector = Program().raw(bytes([0xB0, 0x2A, 0xE6, 0xF4])).halt().code
    disk = tmp_path / "disk.img"
    disk.write_bytes(sector.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    screen = Screen()
    with framework.machine(
        "pc",
        memory=MEMORY,
        firmware=firmware("bios-256k.bin"),
        drives=[f"file={disk}"],
        serial=screen.print,
    ) as machine:
        machine.start()
        outcome = machine.wait(SECONDS)
    assert (outcome.reason, outcome.status) == ("exit", 0x55), screen.text.decode("latin-1")


def test_firmware_finds_the_kernel_that_is_given_beside_it(
    framework: Framework, tmp_path: Path
) -> None:
    """Firmware of our own, entered at the reset vector, prints the command line from fw_cfg."""
    code = bytes.fromhex(
        "ba1005 b81500 ef"  # mov dx, 0x510; mov ax, 0x15; out dx, ax
        "ba1105 ec 84c0 7406"  # next: mov dx, 0x511; in al, dx; test al, al; jz done
        "baf803 ee ebf2"  # mov dx, 0x3f8; out dx, al; jmp next
        "b000 e6f4 f4"  # done: mov al, 0; out 0xf4, al; hlt
    )
    image = bytearray(code.ljust(0x10000, b"\xf4"))
    image[0xFFF0:0xFFF3] = bytes.fromhex("e90d00")  # jmp to the first byte
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"any")
    rom = tmp_path / "rom"
    rom.write_bytes(image)
    screen = Screen()
    with framework.machine(
        "pc", memory=MEMORY, firmware=rom, kernel=kernel, append="to boot", serial=screen.print
    ) as machine:
        machine.start()
        outcome = machine.wait(SECONDS)
    assert (outcome.reason, screen.text) == ("exit", b"to boot")
