"""Guests on kvm that die, never end, or are stopped, and output that cannot be written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from guest_programs import (
    AT_ONCE,
    NO_RAM_HERE,
    SPIN,
    Program,
    command,
    cpufw,
    environment,
)

from cpufw.cli import main
from cpufw_x86.kvm import X86KVM

pytestmark = pytest.mark.kvm

DIED, TIMED_OUT = 3, 124


def code_lines(stderr: str) -> list[str]:
    """The disassembly of a report: `-> 0x…: bytes  instruction`."""
    return [line for line in stderr.splitlines() if line[:2] in ("->", " ?", "  ") and ": " in line]


# --- death --------------------------------------------------------------------------------


def test_triple_fault_is_reported_with_registers(tmp_path: Path) -> None:
    image = Program().say("last words").triple_fault().write(tmp_path / "guest")
    done = cpufw("run", "--entry-mode", "protected", "--timeout", "60", image)
    assert (done.returncode, done.stdout) == (DIED, "last words")
    assert "vCPU 0 died: triple fault" in done.stderr
    if "KVM reset the registers" in done.stderr:
        return  # AMD-V does: what they were is lost, and the report says so
    assert "rcx 0000000012345678" in done.stderr
    assert "32-bit protected mode" in done.stderr
    [here] = [line for line in code_lines(done.stderr) if line.startswith("->")]
    assert "0f 0b" in here
    assert here.endswith("ud2")
    before = [line for line in code_lines(done.stderr) if line.startswith(" ?")]
    assert "mov ecx, 0x12345678" in before[-1]
    assert "lidt [eax]" in before[-2]


def test_execution_where_there_is_no_ram_is_an_emulation_failure(tmp_path: Path) -> None:
    image = Program().say("leaving\n").jump(NO_RAM_HERE).write(tmp_path / "guest")
    for mode in ("protected", "long"):
        done = cpufw("run", "--entry-mode", mode, "--timeout", "60", image)
        assert (done.returncode, done.stdout) == (DIED, "leaving\n")
        assert "KVM cannot emulate the instruction at rip" in done.stderr
        assert f"rip {NO_RAM_HERE:016x}" in done.stderr
        assert f"-> {NO_RAM_HERE:#x}: there is no RAM at this address" in done.stderr


def test_real_mode_code_is_disassembled_as_16_bit(tmp_path: Path) -> None:
    # mov cx, 0x1234; jmp self
    image = Program().raw(bytes.fromhex("b93412")).raw(SPIN).write(tmp_path / "guest")
    done = cpufw("run", "--timeout", "0.5", image)
    assert done.returncode == TIMED_OUT
    assert " ? 0x7c00: b9 34 12" in done.stderr
    assert "mov cx, 0x1234" in done.stderr
    [here] = [line for line in code_lines(done.stderr) if line.startswith("->")]
    assert here.startswith("-> 0x7c03: eb fe")
    assert here.endswith("jmp 0x7c03")


def test_a_second_cpu_that_dies_is_named(tmp_path: Path) -> None:
    # CPU 0 starts CPU 1 at 0x8000 by INIT and SIPI and spins; with 1 MiB of RAM the highest
    # address of real mode, to which CPU 1 jumps, is not there.
    far_jump = bytes.fromhex("ea1000ffff")
    boot = Program()
    for offset, byte in enumerate(far_jump):
        boot.raw(b"\xc6\x05" + (0x8000 + offset).to_bytes(4, "little") + bytes([byte]))
    for icr in (0x000C_4500, 0x000C_4608):  # to all but self: INIT, start-up with vector 8
        boot.raw(b"\xc7\x05\x00\x03\xe0\xfe" + icr.to_bytes(4, "little"))
    image = boot.raw(SPIN).write(tmp_path / "guest")
    options = ("--memory", "1M", "--load-address", "0x10000", "--entry-mode", "protected")
    done = cpufw("run", "--smp", "2", *options, "--timeout", "60", image)
    assert done.returncode == DIED, done.stderr
    assert "vCPU 1 died: KVM cannot emulate the instruction at rip" in done.stderr
    assert "-> 0x100000: there is no RAM at this address" in done.stderr
    assert "real mode" in done.stderr


# --- guests that do not end ---------------------------------------------------------------


def test_tight_loop_is_stopped_within_a_second_of_the_timeout(tmp_path: Path) -> None:
    image = Program().say("spinning\n").raw(SPIN).write(tmp_path / "guest")
    cpufw("run", "--timeout", "0.1", image)  # warms the definitions' cache
    started = time.monotonic()
    cpufw("run", image, "--timeout", "0.001")
    overhead = time.monotonic() - started
    for mode in ("real", "long"):
        started = time.monotonic()
        done = cpufw("run", image, "--timeout", "1.5", "--entry-mode", mode)
        took = time.monotonic() - started
        assert done.returncode == TIMED_OUT
        assert done.stdout == "spinning\n"
        assert 1.5 <= took < 1.5 + AT_ONCE + overhead
        assert "the guest did not end in 1.5 s" in done.stderr
        assert "vCPU 0:" in done.stderr
        assert any(line.startswith("-> ") and "jmp" in line for line in code_lines(done.stderr))


def test_timeout_tells_where_each_cpu_was(tmp_path: Path) -> None:
    image = Program().raw(SPIN).write(tmp_path / "guest")
    done = cpufw("run", "--smp", "3", "--timeout", "0.5", image)
    assert done.returncode == TIMED_OUT
    lines = [line for line in done.stderr.splitlines() if line.startswith("vCPU ")]
    not_started = "the guest has not started it"
    assert lines == ["vCPU 0:", f"vCPU 1: {not_started}", f"vCPU 2: {not_started}"]
    assert done.stderr.count("rip ") == 1


def test_halted_guest_is_stopped_too(tmp_path: Path) -> None:
    image = Program().say("zzz").halt().write(tmp_path / "guest")
    done = cpufw("run", "--timeout", "0.5", image)
    assert (done.returncode, done.stdout) == (TIMED_OUT, "zzz")
    assert "vCPU 0: halted" in done.stderr
    assert "hlt" in done.stderr


@pytest.mark.parametrize(
    ("number", "expected", "word", "then"),
    [
        (signal.SIGINT, 130, "interrupted", "spin"),
        (signal.SIGTERM, 143, "terminated", "spin"),
        (signal.SIGINT, 130, "interrupted", "halt"),
        (signal.SIGTERM, 143, "terminated", "print"),
    ],
)
def test_signals_stop_the_guest_at_once(
    number: int, expected: int, word: str, then: str, tmp_path: Path
) -> None:
    program = Program().say("running\n")
    if then == "spin":
        program.raw(SPIN)
    elif then == "halt":
        program.halt()
    else:
        program.raw(b"\xee\xeb\xfd")  # out dx, al; jmp back
    image = program.write(tmp_path / "guest")
    log = tmp_path / "log"
    process = subprocess.Popen(
        command("run", "--smp", "2", "--serial", f"file:{log}", image),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (log.exists() and b"running\n" in log.read_bytes()):
        assert time.monotonic() < deadline, "the guest never said anything"
        time.sleep(0.02)
    sent = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - sent < 2 * AT_ONCE
    assert process.returncode == expected
    assert stderr.splitlines()[-1] == f"cpufw: {word}"
    with pytest.raises(ProcessLookupError):  # the whole process group is gone
        os.killpg(process.pid, 0)


# --- output that cannot be written --------------------------------------------------------


def shell(line: str, image: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a shell line; in it `cpufw` is our command and `$IMAGE` the guest."""
    text = f'cpufw() {{ {" ".join(command())} "$@"; }}; {line}'
    return subprocess.run(
        ["sh", "-c", text],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(IMAGE=str(image)),
        check=False,
    )


def read_one_line(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `cpufw` for a reader that leaves after the first line, as `head -n 1` does."""
    with subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONFAULTHANDLER="1"),
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        try:
            _, stderr = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            pytest.fail(f"it goes on and on: {process.communicate()[1]}")
        return subprocess.CompletedProcess(arguments, process.returncode, line, stderr)


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What is on standard error but the choice of accelerator and the warnings."""
    lines = done.stderr.splitlines()
    return [line for line in lines if "warning: " not in line and "accelerator kvm" not in line]


@pytest.fixture
def chatterbox(tmp_path: Path) -> Path:
    """A real-mode guest that prints for ever."""
    return Program().say("y\n").raw(b"\xee\xeb\xfd").write(tmp_path / "chatterbox")


def test_full_disk_ends_the_run(chatterbox: Path) -> None:
    done = shell("cpufw run --serial file:/dev/full $IMAGE", chatterbox)
    assert done.returncode == 1
    assert complaints(done) == [
        "cpufw: --serial: /dev/full cannot be written: No space left on device"
    ]
    done = shell("cpufw run $IMAGE >/dev/full", chatterbox)
    assert done.returncode == 1
    assert complaints(done) == ["cpufw: standard output: No space left on device"]


def test_reader_that_leaves_ends_the_run(chatterbox: Path) -> None:
    done = read_one_line("run", chatterbox)
    assert (done.returncode, done.stdout) == (141, "y\n")
    assert complaints(done) == ["cpufw: standard output was closed before everything was written"]


def test_closed_standard_streams(tmp_path: Path) -> None:
    image = Program().say("hello\n").exit(0).write(tmp_path / "guest")
    done = shell("cpufw run $IMAGE >&-", image)
    assert done.returncode == 1
    assert complaints(done) == ["cpufw: standard output: Bad file descriptor"]
    log = tmp_path / "log"
    done = shell(f"cpufw run --serial file:{log} $IMAGE >&- 2>&- <&-", image)
    assert done.returncode == 1  # (0 << 1) | 1: the guest's own
    assert log.read_text() == "hello\n"
    done = shell("cpufw run $IMAGE 2>&-", image)
    assert (done.returncode, done.stdout) == (1, "hello\n")
    done = shell("cpufw run $IMAGE 2>/dev/full", image)
    assert (done.returncode, done.stdout) == (1, "hello\n")


def test_demo_with_nobody_to_read_it() -> None:
    done = read_one_line("demo")
    assert (done.returncode, done.stdout[-1:]) == (141, "\n")
    done = shell("cpufw demo >/dev/full")
    assert done.returncode == 1
    assert complaints(done) == ["cpufw: standard output: No space left on device"]
    done = shell("cpufw demo >&-")
    assert done.returncode == 1
    assert complaints(done) == ["cpufw: standard output: Bad file descriptor"]


# --- a host whose /dev/kvm is of no use ---------------------------------------------------


def unshared(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `cpufw` after `script` in a mount namespace of its own, or skip."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare(1) to hide /dev/kvm")
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"unshare -m does not work here: {probe.stderr.decode().strip()}")
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{script} && exec "$@"', "sh", *command(*arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(),
        check=False,
    )


@pytest.mark.parametrize("arguments", [("demo",), ("host",), ("list-models", "--usable")])
def test_no_kvm_device_is_one_clear_sentence(arguments: tuple[str, ...]) -> None:
    # A file system over /dev that holds only what Python needs.
    script = (
        "mkdir -p /tmp/no-kvm && mount -t tmpfs none /tmp/no-kvm && cd /tmp/no-kvm && "
        "for name in null zero urandom random; do touch $name && mount --bind /dev/$name $name; "
        "done && mount --rbind /tmp/no-kvm /dev"
    )
    done = unshared(script, *arguments)
    if "mount" in done.stderr:
        pytest.skip(f"cannot mount over /dev here: {done.stderr.strip()}")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert "/dev/kvm" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_kvm_device_that_is_none_is_one_clear_sentence() -> None:
    done = unshared("mount --bind /dev/null /dev/kvm", "demo")
    if "mount" in done.stderr:
        pytest.skip(f"cannot mount over /dev/kvm here: {done.stderr.strip()}")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert "/dev/kvm" in done.stderr


def test_no_permission_is_one_clear_sentence(tmp_path: Path) -> None:
    # Root without its capabilities has the rights of the device's file mode only.
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv(1) to give up the right to open /dev/kvm")
    if os.stat("/dev/kvm").st_mode & 0o002:  # noqa: PTH116
        pytest.skip("/dev/kvm is open to everybody here")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    probe = subprocess.run([*nobody, *command("--version")], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("another user cannot run this Python")
    surroundings = environment(XDG_CACHE_HOME=str(tmp_path), HOME=str(tmp_path))
    done = subprocess.run(
        [*nobody, *command("demo")],
        capture_output=True,
        text=True,
        env=surroundings,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert "/dev/kvm" in done.stderr
    assert "ermission" in done.stderr


def test_a_capability_that_kvm_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = X86KVM.check_extension
    monkeypatch.setattr(
        X86KVM, "check_extension", lambda kvm, cap: 0 if cap == "KVM_CAP_PIT2" else real(kvm, cap)
    )
    assert main(["demo"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "cpufw: /dev/kvm lacks KVM_CAP_PIT2, which a PC needs\n")
