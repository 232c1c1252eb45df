"""`cpufw run` on kvm: images, modes, ports, topology and CPU options, as a user gives them."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from guest_programs import (
    EM_X86_64,
    MODE_NUMBER,
    POWER_PORT,
    RESET_PORT,
    SLEEP_ENABLE,
    Program,
    cpufw,
    elf,
)

from cpufw.cli import main

pytestmark = pytest.mark.kvm

MODES = {"real": 6, "protected": 7, "long": 3}


def status(value: int) -> int:
    """What the exit port makes of a byte, as a process's status."""
    return (value << 1 | 1) & 0xFF


def mode_number(said: str = "") -> Program:
    return Program().say(said).raw(MODE_NUMBER).exit_with_al()


# --- modes and images ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_flat_image_is_entered_in_the_mode_asked_for(mode: str, tmp_path: Path) -> None:
    image = mode_number(f"in {mode}\n").write(tmp_path / "flat.bin")
    done = cpufw("run", "--entry-mode", mode, image)
    assert (done.stdout, done.returncode) == (f"in {mode}\n", status(MODES[mode])), done.stderr


def test_flat_image_is_entered_in_real_mode_by_default(tmp_path: Path) -> None:
    assert cpufw("run", mode_number().write(tmp_path / "flat")).returncode == status(MODES["real"])


@pytest.mark.parametrize(
    ("wide", "mode", "entered"),
    [
        (False, None, "protected"),
        (True, None, "long"),
        (False, "long", "long"),
        (True, "protected", "protected"),
    ],
)
def test_elf_is_entered_by_its_class_or_as_asked(
    wide: bool, mode: str | None, entered: str, tmp_path: Path
) -> None:
    image = tmp_path / "guest.elf"
    image.write_bytes(elf(mode_number("elf\n").code, wide=wide))
    done = cpufw("run", *(["--entry-mode", mode] if mode else []), "--kernel", image)
    assert (done.stdout, done.returncode) == ("elf\n", status(MODES[entered])), done.stderr


@pytest.mark.parametrize("wide", [False, True])
def test_elf_linked_to_run_elsewhere_begins_where_it_is_loaded(wide: bool, tmp_path: Path) -> None:
    image = tmp_path / "guest.elf"
    code = Program().say("up here\n").exit(1).code
    image.write_bytes(elf(code, wide=wide, address=0x30_0000, virtual=0xC030_0000))
    done = cpufw("run", image)
    assert (done.stdout, done.returncode) == ("up here\n", status(1)), done.stderr


def test_load_address_moves_a_flat_image(tmp_path: Path) -> None:
    # 32-bit: call the next instruction, pop its address, shift its second 64 KiB into al.
    here = Program().raw(bytes.fromhex("e800000000 58 c1e810")).exit_with_al()
    image = here.write(tmp_path / "where")
    for address, value in (("0x100000", 0x10), ("0x230000", 0x23), ("4194304", 0x40)):
        done = cpufw("run", "--entry-mode", "protected", "--load-address", address, image)
        assert done.returncode == status(value), done.stderr


def test_real_mode_image_in_the_last_segment_below_1_mib(tmp_path: Path) -> None:
    image = mode_number().write(tmp_path / "high")
    done = cpufw("run", "--load-address", "0xffe00", image)
    assert done.returncode == status(MODES["real"]), done.stderr


# --- ways out -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 1, 5, 0x7F])
def test_exit_port_sets_the_status(value: int, tmp_path: Path) -> None:
    image = Program().exit(value).write(tmp_path / "exit")
    done = cpufw("run", image)
    assert done.returncode == status(value)
    assert done.stdout == ""


def test_power_off_and_reset_end_with_success(tmp_path: Path) -> None:
    off = Program().say("off\n").outw(POWER_PORT, SLEEP_ENABLE).halt().write(tmp_path / "off")
    reset = Program().say("reset\n").outb(RESET_PORT, 0x6).halt().write(tmp_path / "reset")
    keyboard = Program().say("pulse\n").outb(0x64, 0xFE).halt().write(tmp_path / "pulse")
    for image, said in ((off, "off\n"), (reset, "reset\n"), (keyboard, "pulse\n")):
        done = cpufw("run", "--entry-mode", "protected", "--no-reboot", image)
        assert (done.returncode, done.stdout) == (0, said), done.stderr


# --- serial -------------------------------------------------------------------------------


def test_serial_goes_to_a_file_and_nothing_to_stdout(tmp_path: Path) -> None:
    image = Program().say("to the file\n").exit(0).write(tmp_path / "guest")
    where = tmp_path / "serial.log"
    where.write_text("what was there before")
    done = cpufw("run", "--serial", f"file:{where}", image)
    assert (done.returncode, done.stdout) == (status(0), "")
    assert where.read_text() == "to the file\n"


def test_serial_none_drops_the_output(tmp_path: Path) -> None:
    image = Program().say("unheard\n").exit(0).write(tmp_path / "guest")
    done = cpufw("run", "--serial", "none", image)
    assert (done.returncode, done.stdout) == (status(0), "")


def test_output_without_a_newline_and_of_any_byte_arrives_whole(tmp_path: Path) -> None:
    program = Program().say("")
    for byte in range(256):
        program.raw(bytes([0xB0, byte, 0xEE]))
    image = program.exit(0).write(tmp_path / "guest")
    where = tmp_path / "serial"
    assert cpufw("run", "--serial", f"file:{where}", image).returncode == status(0)
    assert where.read_bytes() == bytes(range(256))


def test_much_output_arrives_in_order(tmp_path: Path) -> None:
    # 16-bit: cx = 20000; print the low byte of cx until it is 0.
    loop = Program().raw(b"\xb9" + (20000).to_bytes(2, "little")).say("")
    image = loop.raw(bytes.fromhex("88c8 ee e2fb")).exit(0).write(tmp_path / "guest")
    where = tmp_path / "serial"
    assert cpufw("run", "--serial", f"file:{where}", image).returncode == status(0)
    assert where.read_bytes() == bytes(count & 0xFF for count in range(20000, 0, -1))


# --- the machine --------------------------------------------------------------------------


def count_cpus() -> Program:
    """Count the CPUs that the hot-plug block shows, in edi (32-bit code)."""
    start = "31f6 31ff"  # esi: slot, edi: how many are enabled
    loop = bytes.fromhex(
        "ba d80c0000 89f0 ef"  # select slot esi
        "ba dc0c0000 ec 83e001 01c7"  # add bit 0 of its flags
        "46 83fe10 72"  # up to slot 16
    )
    return Program().raw(bytes.fromhex(start) + loop + bytes([-len(loop) - 1 & 0xFF]))


@pytest.mark.parametrize(
    ("smp", "enabled"),
    [
        ("1", 1),
        ("3", 3),
        ("1,maxcpus=4", 1),
        ("2,maxcpus=8,sockets=2,dies=1,cores=2,threads=2", 2),
        ("cpus=4,sockets=4", 4),
    ],
)
def test_smp_says_how_many_cpus_are_there(smp: str, enabled: int, tmp_path: Path) -> None:
    image = count_cpus().raw(b"\x89\xf8").exit_with_al().write(tmp_path / "count")
    done = cpufw("run", "--entry-mode", "protected", "--smp", smp, image)
    assert done.returncode == status(enabled), done.stderr


def test_devices_are_there_from_the_start(tmp_path: Path) -> None:
    image = count_cpus().raw(b"\x89\xf8").exit_with_al().write(tmp_path / "count")
    smp = "1,maxcpus=4,sockets=2,cores=2,threads=1"
    given = ["Haswell-x86_64-cpu,id=cpu1,socket-id=0,core-id=1,thread-id=0"]
    given.append("Haswell-x86_64-cpu,socket-id=1,core-id=0,thread-id=0")
    devices = [word for device in given for word in ("--device", device)]
    done = cpufw(
        "run", "--cpu", "Haswell", "--entry-mode", "protected", "--smp", smp, *devices, image
    )
    assert done.returncode == status(3), done.stderr


def test_memory_of_the_asked_size_is_there_and_no_more(tmp_path: Path) -> None:
    # 32-bit: write and read back the last byte below 8 MiB, then the first above it.
    # Nothing is there: reads are all ones, so `and` leaves what was read first.
    probe = Program().raw(bytes.fromhex("c605ffff7f0042 c6050000800000"))
    probe.raw(bytes.fromhex("a0ffff7f00 220500008000")).exit_with_al()
    image = probe.write(tmp_path / "probe")
    for size, value in (("8M", 0x42), ("8192K", 0x42), ("8", 0x42), ("9M", 0)):
        done = cpufw("run", "--entry-mode", "protected", "--memory", size, image)
        assert done.returncode == status(value), done.stderr


def test_memory_beyond_the_hole_begins_at_4_gib(tmp_path: Path) -> None:
    # 64-bit: let a 2 MiB page of the map that cpufw made (cpufw_x86.boot) point beyond 4 GiB.
    tables = 0x9_2000  # the page-directory-pointer table
    code = Program().raw(b"\xbb" + tables.to_bytes(4, "little"))
    # mov rcx, [rbx]; and rcx, ~0xfff; mov rax, 0x100000083; mov [rcx + 8 * 8], rax
    code.raw(bytes.fromhex("488b0b 4881e100f0ffff 48b88300000001000000 48894140"))
    # mov byte [0x1000005], 0x2a; mov al, [0x1000005]: entry 8 maps 16 MiB.
    code.raw(bytes.fromhex("bf05000001 c6072a 8a07")).exit_with_al()
    image = code.write(tmp_path / "above")
    done = cpufw("run", "--entry-mode", "long", "--memory", "4G", image)
    assert done.returncode == status(0x2A), done.stderr
    done = cpufw("run", "--entry-mode", "long", "--memory", "3G", image)
    assert done.returncode == status(0xFF), done.stderr


# --- the CPU ------------------------------------------------------------------------------


def family_and_model() -> Program:
    """Exit with the low byte of CPUID 1.EAX shifted by 4: model and family."""
    return Program().raw(bytes.fromhex("b801000000 0fa2 c1e804")).exit_with_al()


def test_cpu_properties_reach_the_guest(tmp_path: Path) -> None:
    image = family_and_model().write(tmp_path / "cpuid")
    run = ("run", "--entry-mode", "protected")
    # Haswell is family 6, model 60 = 0x3c.
    assert cpufw(*run, "--cpu", "Haswell", image).returncode == status(0x6C)
    assert cpufw(*run, "--cpu", "Haswell,model=0x3a", image).returncode == status(0x6A)


def test_a_feature_taken_away_is_not_there(tmp_path: Path) -> None:
    # CPUID 80000001.ECX bit 0 is lahf-lm: mov al, cl; and al, 1.
    code = Program().raw(bytes.fromhex("b801000080 0fa2 88c8 2401")).exit_with_al()
    image = code.write(tmp_path / "lahf")
    run = ("run", "--entry-mode", "protected")
    assert cpufw(*run, "--cpu", "Haswell", image).returncode == status(1)
    assert cpufw(*run, "--cpu", "Haswell,-lahf-lm", image).returncode == status(0)


def test_enforce_refuses_what_kvm_cannot_give(tmp_path: Path) -> None:
    image = Program().exit(0).write(tmp_path / "guest")
    # The bit of an Itanium that emulates x86: no KVM gives that.
    asked = "qemu64,+ia64"
    done = cpufw("run", "--cpu", asked, image)
    assert done.returncode == status(0)
    assert "warning: " in done.stderr
    assert "ia64 (1.EDX:30)" in done.stderr
    done = cpufw("run", "--cpu", asked, "--enforce", image)
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not grant" in done.stderr
    assert "ia64 (1.EDX:30)" in done.stderr


# --- guests of GNU as and ld --------------------------------------------------------------

REPORT = """
        .macro  put character
        movb    $\\character, %al
        movw    $0x3f8, %dx
        outb    %al, %dx
        .endm
        .globl  _start
_start: put     48+MODE/10
        put     48+MODE%10
        put     32
        xorl    %eax, %eax
        cpuid
        movl    %ebx, %esi              # the vendor's first four letters
        movl    $4, %ecx
again:  movl    %esi, %eax
        movw    $0x3f8, %dx
        outb    %al, %dx
        shrl    $8, %esi
        decl    %ecx
        jnz     again
        put     10
        movl    mode, %eax              # by its address: the image is where it was linked to be
        outb    %al, $0xf4
stop:   hlt
        jmp     stop
mode:   .long   MODE
"""

needs_binutils = pytest.mark.skipif(
    not (shutil.which("as") and shutil.which("ld")), reason="needs GNU as and ld (binutils)"
)


def build(tmp_path: Path, bits: int, *link: str) -> Path:
    source, made = tmp_path / "guest.S", tmp_path / "guest.o"
    linked = tmp_path / f"guest{bits}"
    source.write_text(f".set MODE, {bits}\n.code{bits}\n.text\n{REPORT}")
    wide = bits == 64
    subprocess.run(["as", "--64" if wide else "--32", "-o", made, source], check=True)
    kind = "elf_x86_64" if wide else "elf_i386"
    subprocess.run(["ld", "-m", kind, *link, "-o", linked, made], check=True)
    return linked


@needs_binutils
@pytest.mark.parametrize(
    ("bits", "link", "options"),
    [
        (16, ("-Ttext=0x7c00", "--oformat=binary"), ()),
        (16, ("-Ttext=0x1000", "--oformat=binary"), ("--load-address", "0x1000")),
        (32, ("-Ttext=0x100000", "--oformat=binary"), ("--entry-mode", "protected")),
        (64, ("-Ttext=0x100000", "--oformat=binary"), ("--entry-mode", "long")),
        (32, (), ("--memory", "256M")),  # ld puts 32-bit programs above 128 MiB
        (64, (), ()),
    ],
    ids=["real", "real-moved", "protected", "long", "elf32", "elf64"],
)
def test_gnu_tools_make_guests_of_every_kind(
    bits: int, link: tuple[str, ...], options: tuple[str, ...], tmp_path: Path
) -> None:
    image = build(tmp_path, bits, *link)
    done = cpufw("run", "--cpu", "EPYC", *options, image)
    assert done.stdout == f"{bits} Auth\n", done.stderr
    assert done.returncode == status(bits)


# --- what is refused, each in one sentence (in this process: a new one takes longer) -------


class Refusals:
    """Asks for a run and reads what is said to it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def expect(self, arguments: Sequence[str | Path], status: int, *words: str) -> None:
        files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208
        assert main(["run", *map(str, arguments)]) == status
        said = self._capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("cpufw: ")
        assert said.err.count("\n") == 1, said.err
        for word in words:
            assert word in said.err
        assert len(os.listdir("/proc/self/fd")) == files  # noqa: PTH208
        assert threading.active_count() == threads


@pytest.fixture
def refusals(capsys: pytest.CaptureFixture[str]) -> Refusals:
    return Refusals(capsys)


# --- images that are none -----------------------------------------------------------------

BAD_ELFS = {
    "other machine": (elf(b"\xf4", wide=True, machine=183), "machine 183"),
    "32-bit header for x86-64": (elf(b"\xf4", wide=False, machine=EM_X86_64), "machine 62"),
    "object file": (elf(b"\xf4", wide=True, kind=1), "link it first"),
    "cut in its header": (elf(b"\xf4", wide=True)[:40], "cut short"),
    "cut in its program header": (elf(b"\xf4", wide=True)[:80], "cut short"),
    "cut in its segment": (elf(bytes(100), wide=True)[:-50], "cut short"),
    "only its magic": (b"\x7fELF", "cut short"),
    "entry outside": (elf(b"\xf4", wide=True, entry=0x1234_5678), "0x12345678"),
    "beyond the RAM": (elf(b"\xf4", wide=True, address=0x4000_0000), "128 MiB"),
    "more zeros than RAM": (elf(b"\xf4", wide=True, zeros=1 << 30), "128 MiB"),
    "over the boot tables": (elf(b"\xf4", wide=True, address=0x9_1000), "0x90000-0x96fff"),
    "for real mode": (elf(b"\xf4", wide=False), "protected or long"),
}


@pytest.mark.parametrize("name", BAD_ELFS)
def test_bad_elf_is_refused(name: str, tmp_path: Path, refusals: Refusals) -> None:
    content, words = BAD_ELFS[name]
    image = tmp_path / "bad.elf"
    image.write_bytes(content)
    mode = ["--entry-mode", "real"] if name == "for real mode" else []
    refusals.expect([*mode, image], 1, str(image), words)


def test_bad_flat_images_are_refused(tmp_path: Path, refusals: Refusals) -> None:
    small = Program().exit(0).write(tmp_path / "small")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "big").write_bytes(bytes(3 << 20))
    cases: list[tuple[list[str | Path], int, tuple[str, ...]]] = [
        ([tmp_path / "missing"], 1, ("missing", "No such file")),
        ([tmp_path / "empty"], 1, ("empty",)),
        ([tmp_path], 1, (str(tmp_path), "directory")),
        (["/dev/zero"], 1, ("/dev/zero", "device")),
        (["--memory", "2M", tmp_path / "big"], 1, ("big", "3145728 bytes", "2 MiB")),
        (["--load-address", "0x7ffffff", small], 1, ("small", "0x7ffffff")),
        (["--load-address", "0x100000", small], 1, ("small", "1 MiB")),
        (["--load-address", "0x8ffff", "--entry-mode", "long", small], 1, ("0x90000",)),
        (["--load-address", "-1", small], 2, ("--load-address",)),
        (["--load-address", "here", small], 2, ("--load-address",)),
        ([small, "--kernel", small], 2, ("two guest images",)),
        ([], 2, ("image",)),
        ([small, small], 2, ("unrecognized",)),
    ]
    for arguments, expected, words in cases:
        refusals.expect(arguments, expected, *words)


# --- everything else that can be asked for wrongly ----------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected", "words"),
    [
        (["--cpu", "Haswel"], 1, ["Haswel", "did you mean Haswell"]),
        (["--cpu", "Haswell,+pcidd"], 1, ["pcidd", "pcid"]),
        (["--cpu", "Haswell,steping=3"], 1, ["steping", "stepping"]),
        (["--cpu", "Haswell,stepping=99"], 1, ["stepping=99", "0 to 15"]),
        (["--cpu", "Haswell,stepping=high"], 1, ["stepping=high", "whole number"]),
        (["--enforce"], 2, ["--cpu"]),
        (["--smp", "4,maxcpus=2"], 2, ["maxcpus (2)", "cpus (4)"]),
        (["--smp", "2,maxcpus=4,sockets=3"], 2, ["must equal maxcpus (4)"]),
        (["--smp", "0"], 2, ["cpus=0"]),
        (["--smp", "-1"], 2, ["cpus=-1"]),
        (["--smp", "many"], 2, ["many"]),
        (["--smp", "1,books=2"], 2, ["books"]),
        (["--smp", "1,maxcpus=100000"], 2, ["100000", "1024"]),
        (["--memory", "0"], 2, ["0 bytes"]),
        (["--memory", "-1"], 2, ["-1"]),
        (["--memory", "lots"], 2, ["lots"]),
        (["--memory", "1.5G"], 2, ["1.5G"]),
        (["--memory", "1025K"], 2, ["1049600"]),
        (["--memory", "4096T"], 2, ["physical address bits"]),
        (["--memory", "5G", "--cpu", "486"], 2, ["32 physical address bits"]),
        (["--machine", "q36"], 1, ["q36"]),
        (["--machine", "none"], 2, ["none", "pc"]),
        (["--accel", "hvf"], 1, ["hvf"]),
        (["--timeout", "0"], 2, ["--timeout", "'0'"]),
        (["--timeout", "-3"], 2, ["--timeout"]),
        (["--timeout", "nan"], 2, ["--timeout"]),
        (["--timeout", "soon"], 2, ["--timeout"]),
        (["--serial", "tcp:1"], 2, ["tcp:1", "stdio"]),
        (["--serial", "file:"], 2, ["file:"]),
        (["--serial", "file:/missing/folder/log"], 1, ["/missing/folder/log", "No such file"]),
        (["--serial", "file:/proc"], 1, ["/proc", "directory"]),
        (["--colour"], 2, ["--colour", "cpufw run --help"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_request_is_refused(
    arguments: list[str], expected: int, words: list[str], tmp_path: Path, refusals: Refusals
) -> None:
    image = Program().exit(0).write(tmp_path / "guest")
    refusals.expect([*arguments, image], expected, *words)


PLACE = "socket-id=0,core-id=1,thread-id=0"


@pytest.mark.parametrize(
    ("devices", "expected", "words"),
    [
        ([f"qemu64-x86_64-cpu,{PLACE},id=a"] * 2, 1, ["id 'a' is in use"]),
        ([f"qemu64-x86_64-cpu,{PLACE}"] * 2, 1, ["slot 1", "taken"]),
        (["qemu64-x86_64-cpu,socket-id=0,core-id=0,thread-id=0"], 1, ["slot 0", "taken"]),
        (["qemu64-x86_64-cpu,socket-id=0,core-id=2,thread-id=0"], 1, ["core-id=2", "0 to 1"]),
        (["qemu64-x86_64-cpu,socket-id=-1,core-id=1,thread-id=0"], 1, ["socket-id is not set"]),
        (["qemu64-x86_64-cpu,socket-id=0,core-id=one,thread-id=0"], 1, ["core-id=one"]),
        (["qemu64-x86_64-cpu,socket-id=0,thread-id=0"], 1, ["core-id is not set"]),
        ([f"qemu64-x86_64-cpu,{PLACE},core-id=1"], 2, ["core-id", "twice"]),
        ([f"qemu64-x86_64-cpu,{PLACE},core=1"], 1, ["core"]),
        ([f"qemu64-x86_64-cpu,{PLACE},id=1st"], 1, ["1st"]),
        ([f"Haswell-x86_64-cpu,{PLACE}"], 1, ["Haswell-x86_64-cpu", "qemu64-x86_64-cpu"]),
        ([f"qemu65-x86_64-cpu,{PLACE}"], 1, ["qemu65-x86_64-cpu", "qemu64-x86_64-cpu"]),
        (["qemu64-x86_64-cpu,core-id"], 2, ["core-id", "NAME=VALUE"]),
        ([""], 2, ["--device"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_bad_device_is_refused(
    devices: list[str], expected: int, words: list[str], tmp_path: Path, refusals: Refusals
) -> None:
    image = Program().exit(0).write(tmp_path / "guest")
    given = [word for device in devices for word in ("--device", device)]
    refusals.expect(["--smp", "1,maxcpus=2", *given, image], expected, *words)
