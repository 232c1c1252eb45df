"""Devices of the pc as real guests reach them, over KVM's exits."""

from __future__ import annotations

from pathlib import Path

import pytest
from guest_programs import COM1, Program, cpufw

pytestmark = pytest.mark.kvm

FW_CFG_SELECTOR, FW_CFG_DATA = 0x510, 0x511
CPU_COUNT_ITEM, SECOND_FILE = 0x05, 0x21  # the first file is etc/e820
PIC_MASTER, PIC_SLAVE, READ_IRR = 0x20, 0xA0, 0x0A


def run(program: Program, tmp_path: Path, *arguments: str) -> tuple[str, int]:
    """What the guest, entered in protected mode, prints and the byte that it leaves with."""
    image = program.write(tmp_path / "guest")
    done = cpufw("run", "--timeout", "30", "--entry-mode", "protected", *arguments, image)
    assert done.returncode & 1, f"{done.returncode}: {done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.returncode >> 1


def inb(program: Program, port: int) -> Program:
    return program.raw(b"\xba" + port.to_bytes(4, "little") + b"\xec")


def test_fw_cfg_counts_the_cpus(tmp_path: Path) -> None:
    program = Program().outw(FW_CFG_SELECTOR, CPU_COUNT_ITEM)
    assert run(inb(program, FW_CFG_DATA).exit_with_al(), tmp_path, "--smp", "3,maxcpus=5")[1] == 3


def test_fw_cfg_has_the_users_files(tmp_path: Path) -> None:
    program = Program().outw(FW_CFG_SELECTOR, SECOND_FILE)
    for _ in "hello":
        inb(program, FW_CFG_DATA).raw(b"\xba" + COM1.to_bytes(4, "little") + b"\xee")
    said, _ = run(program.exit(0), tmp_path, "--fw-cfg", "opt/x,string=hello")
    assert said == "hello"


def test_fw_cfg_file_that_is_missing(tmp_path: Path) -> None:
    image = Program().exit(0).write(tmp_path / "guest")
    done = cpufw("run", "--fw-cfg", f"opt/x,file={tmp_path}/none", image)
    assert done.returncode == 2
    assert "fw_cfg item opt/x" in done.stderr
    assert "Traceback" not in done.stderr


def test_testdev_ports_read_back(tmp_path: Path) -> None:
    program = Program().outl(0xE0, 0x44332211)
    assert run(inb(program, 0xEA).exit_with_al(), tmp_path)[1] == 0x33


def test_testdev_memory(tmp_path: Path) -> None:
    program = Program().raw(
        bytes.fromhex(
            "bb 000100ff"  # mov ebx, 0xff000100
            "c703 44332211"  # mov dword [ebx], 0x11223344
            "66 8b4301"  # mov ax, [ebx + 1]
            "8803"  # mov [ebx], al
            "8a03"
        )  # mov al, [ebx]
    )
    assert run(program.exit_with_al(), tmp_path)[1] == 0x33


@pytest.mark.parametrize(("line", "pic", "bit"), [(5, PIC_MASTER, 0x20), (12, PIC_SLAVE, 0x10)])
def test_testdev_raises_interrupt_lines(line: int, pic: int, bit: int, tmp_path: Path) -> None:
    program = Program().outb(0x2000 + line, 1).outb(pic, READ_IRR).wait_for(pic, bit)
    assert run(program.exit(1), tmp_path)[1] == 1


def test_rtc_interrupts(tmp_path: Path) -> None:
    program = Program().outb(PIC_SLAVE, READ_IRR)
    program.outb(0x70, 0x0B).outb(0x71, 0x42)  # periodic interrupts, 24 hours
    program.wait_for(PIC_SLAVE, 0x01)
    program.outb(0x70, 0x0C)
    assert run(inb(program, 0x71).exit_with_al(), tmp_path)[1] & 0x60 == 0x40


def test_nobody_is_at_other_addresses(tmp_path: Path) -> None:
    program = Program().raw(
        bytes.fromhex("a1 000000d0  c0e801")
    )  # mov eax, [0xd0000000]; shr al, 1
    assert run(program.exit_with_al(), tmp_path)[1] == 0x7F


@pytest.mark.parametrize(("port", "value"), [(0x64, 0xFE), (0x92, 0x03)])
def test_ways_to_reset(port: int, value: int, tmp_path: Path) -> None:
    image = Program().outb(port, value).halt().write(tmp_path / "guest")
    done = cpufw("run", "--no-reboot", "--timeout", "30", "--entry-mode", "protected", image)
    assert done.returncode == 0, done.stderr
