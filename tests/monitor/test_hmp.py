"""HMP: lines in, text out, as QEMU shows it; and `cpu_set`, which fills slots in order."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw.core.machine import Machine
from cpufw.errors import CpufwError
from cpufw.framework import default
from cpufw.monitor.command import COMMANDS as QMP
from cpufw.monitor.hmp.command import COMMANDS
from cpufw.monitor.hmp.line import Line, LineError
from cpufw.monitor.hmp.shell import Shell
from cpufw.monitor.monitor import Monitor

DEMO = Path(__file__).parents[2] / "plugins/x86/guest/demo.bin"
RUN = [sys.executable, "-m", "cpufw", "run", "--cpu", "qemu64", "--serial", "none"]
PATIENCE = 60.0


@pytest.fixture
def shell() -> Iterator[Shell]:
    """On a machine of 2 sockets of 2 cores with no guest."""
    with default().machine(
        "none", cpu="Haswell", arch="x86_64", smp="1,maxcpus=4,sockets=2,cores=2", accel=None
    ) as machine:
        monitor = Monitor(default(), machine)
        yield Shell(monitor)
        monitor.close()


def indexes(machine: Machine) -> list[int]:
    return [slot.index for slot in machine.slots if slot.cpu is not None]


# --- lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2", 3),
        ("0x10 + 010", 0x18),
        ("(1+2)*3", 9),
        ("2 + 3 * 4", 14),
        ("7 & 3 | 8", 11),
        ("-1", (1 << 64) - 1),
        ("~0", (1 << 64) - 1),
        ("$rip - 0x10", 0xFF0),
    ],
)
def test_expressions(text: str, value: int) -> None:
    assert Line(text, {"rip": 0x1000}.__getitem__).number() == value


# What QEMU says to these, word for word.
@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("x/", "unexpected end of expression"),
        ("x/4xz 0", "invalid char in format: 'z'"),
        ("p 1/0", "division by zero"),
        ("p $foo", "unknown register"),
        ("cpu x", "invalid char 'x' in expression"),
        ("cpu", "unexpected end of expression"),
        ("device_del", "device_del: string expected"),
        ("object_add", "object_add: string expected"),
    ],
)
def test_a_line_that_cannot_be_read(shell: Shell, line: str, sentence: str) -> None:
    shell.monitor.machine.board.registers = lambda _slot: {"rip": 0}  # type: ignore[method-assign]
    said, advice = shell.run(line).splitlines()
    assert said == sentence
    assert re.fullmatch(r'Try "help \w+" for more information', advice)


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    for read in (Line.number, Line.word, Line.format, Line.rest):
        with suppress(LineError):
            read(Line(text, lambda _name: 1))


def test_deep_and_long_expressions_are_refused() -> None:
    for text in ("(" * 10_000, "-" * 10_000 + "1", "9" * 5000):
        with pytest.raises(LineError):
            Line(text, lambda _name: 0).number()


@pytest.mark.parametrize("line", ["bogus", "info bogus", "cpu-add 1"])
def test_unknown_commands(shell: Shell, line: str) -> None:
    assert shell.run(line).startswith(f"unknown command: '{line.removesuffix(' 1')}")


# --- CPUs ----------------------------------------------------------------------------------


def test_cpu_set_fills_slots_in_order_and_empties_them_from_the_top(shell: Shell) -> None:
    machine = shell.monitor.machine
    assert shell.run("cpu_set 2 online") == (
        "Error: cpu_set: CPU 2 comes after CPU 1, which is not there yet; slots are filled in "
        "order\n"
    )
    assert indexes(machine) == [0]
    assert shell.run("cpu_set 1 online") == ""
    assert shell.run("cpu_set 2 online") == ""
    assert indexes(machine) == [0, 1, 2]
    assert {cpu.type_name for cpu in machine.cpus()} == {"Haswell-x86_64-cpu"}
    assert "is there already (present)" in shell.run("cpu_set 1 online")
    assert "comes before CPU 2, which is still there" in shell.run("cpu_set 1 offline")
    assert indexes(machine) == [0, 1, 2]
    assert shell.run("cpu_set 2 offline") == ""
    assert shell.run("cpu_set 1 offline") == ""
    assert indexes(machine) == [0]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("cpu_set 4 online", "there is no CPU 4, expected 0 to 3"),
        ("cpu_set 3 offline", "CPU 3 is not there"),
        ("cpu_set 1 up", "'up' is not a state, expected online or offline"),
        ("cpu_set 0 offline", "Boot CPU is unpluggable"),
    ],
)
def test_cpu_set_says_what_is_wrong(shell: Shell, line: str, sentence: str) -> None:
    said = shell.run(line)
    assert said.startswith("Error: ")
    assert said.endswith(f"{sentence}\n")
    assert indexes(shell.monitor.machine) == [0]


def test_cpu_set_does_not_mix_with_slots_plugged_out_of_order(shell: Shell) -> None:
    shell.run("device_add Haswell-x86_64-cpu,id=c3,socket-id=1,core-id=1,thread-id=0")
    assert "CPU 3 above CPU 1 is there, plugged out of order" in shell.run("cpu_set 1 online")
    assert indexes(shell.monitor.machine) == [0, 3]


def test_device_add_and_del(shell: Shell) -> None:
    line = "device_add Haswell-x86_64-cpu,id=c1,socket-id=0,core-id=1,thread-id=0"
    assert shell.run(line) == ""
    assert shell.run("info cpus").splitlines()[1].startswith("  CPU #1: thread_id=")
    assert shell.run(line.replace("c1", "c2")) == "Error: CPU[1] with APIC ID 1 exists\n"
    assert shell.run("device_add nonsuch") == (
        "Error: 'nonsuch' is not a valid device model name\n"
    )
    assert shell.run("device_add") == "Error: Parameter 'driver' is missing\n"
    assert shell.run("device_del nosuch") == "Error: Device 'nosuch' not found\n"
    assert shell.run("device_del c1") == ""
    assert indexes(shell.monitor.machine) == [0]


def test_device_add_tells_what_it_takes(shell: Shell) -> None:
    assert shell.run("device_add help") == 'CPU devices:\nname "Haswell-x86_64-cpu"\n'
    lines = shell.run("device_add Haswell-x86_64-cpu,help").splitlines()
    assert lines[0] == "Haswell-x86_64-cpu options:"
    assert "  avx2=<bool>" in lines
    assert indexes(shell.monitor.machine) == [0]


def test_info_hotpluggable_cpus_looks_like_qemus(shell: Shell) -> None:
    lines = shell.run("info hotpluggable-cpus").splitlines()
    assert lines[:7] == [
        "Hotpluggable CPUs:",
        '  type: "Haswell-x86_64-cpu"',
        '  vcpus_count: "1"',
        "  CPUInstance Properties:",
        '    socket-id: "1"',
        '    core-id: "1"',
        '    thread-id: "0"',
    ]
    assert '  qom_path: "/machine/unattached/device[0]"' in lines


def test_the_selected_cpu_is_marked(shell: Shell) -> None:
    shell.run("cpu_set 1 online")
    assert shell.run("cpu 7") == "invalid CPU index\n"
    assert shell.run("cpu 1") == ""
    assert [line[0] for line in shell.run("info cpus").splitlines()] == [" ", "*"]
    shell.run("cpu_set 1 offline")
    assert shell.run("info cpus").startswith("* CPU #0")


# --- the rest ------------------------------------------------------------------------------


def test_help_shows_every_command_with_a_sentence(shell: Shell) -> None:
    listed = shell.run("help") + shell.run("help info")
    for name, command in COMMANDS.items():
        assert f"{name} {command.parameters} -- " in listed
    assert shell.run("help cpu_set") == shell.run("? cpu_set")
    assert shell.run("help bogus") == "unknown command: 'bogus'\n"


def test_completion(shell: Shell) -> None:
    shell.run("device_add Haswell-x86_64-cpu,id=c1,socket-id=0,core-id=1,thread-id=0")
    assert shell.completions("info cp") == ["cpu-models", "cpus"]
    assert shell.completions("cpu_s") == ["cpu_set"]
    assert shell.completions("cpu_set 1 ") == ["offline", "online"]
    assert shell.completions("device_del ") == ["c1"]
    assert "/machine/peripheral/c1" in shell.completions("qom-list /machine/p")


def test_qom(shell: Shell) -> None:
    assert shell.run("qom-get /machine type") == '"none-machine"\n'
    assert "type (string)" in shell.run("qom-list /machine/peripheral").splitlines()
    assert shell.run("qom-list /nope") == "Error: Device '/nope' not found\n"
    assert shell.run("info qom-tree").startswith("/machine (none-machine)\n  /")


def test_info_cpu_models(shell: Shell) -> None:
    lines = shell.run("info cpu-models").splitlines()
    assert len(lines) == 154
    assert "is Haswell-v1" in next(line for line in lines if line.startswith("Haswell "))


def test_a_machine_with_no_guest_has_nothing_to_look_into(shell: Shell) -> None:
    for line in ("info registers", "x 0", "xp/4xb 0", "p $rip"):
        assert shell.run(line) == "Error: machine type none has no guest to look into\n"


def test_human_monitor_command_ends_lines_as_qemu_does(shell: Shell) -> None:
    def ask(line: str, **more: int) -> str:
        arguments = {"command-line": line, **more}
        answer: str = QMP["human-monitor-command"].run(shell.monitor, None, arguments)
        return answer

    assert ask("info status") == "VM status: paused (prelaunch)\r\n"
    assert ask("cpu-add 1") == "unknown command: 'cpu-add'\r\n"
    assert ask("info cpus", **{"cpu-index": 0}).startswith("* CPU #0")
    with pytest.raises(CpufwError, match=r"^Parameter 'cpu-index' expects a CPU number$"):
        ask("info cpus", **{"cpu-index": 1})


# --- a guest -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guest() -> Iterator[Shell]:
    """A demonstration guest, paused."""
    demo = default().machine_type("pc").demo
    assert demo is not None
    console = bytearray()
    with default().machine("pc", cpu="qemu64", **demo, serial=console.extend) as machine:
        monitor = Monitor(default(), machine)
        machine.start()
        wait(lambda: b"cpu 0: online" in console)
        machine.pause()
        yield Shell(monitor)
        monitor.close()


def wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.kvm
def test_registers_are_those_of_the_guest(guest: Shell) -> None:
    text = guest.run("info registers")
    assert text.startswith("\nCPU#0\nEAX=")
    rip = re.search(r"^EIP=(\w{8}) EFL=\w{8} \[[DOSZAPC-]{7}\] CPL=0", text, re.MULTILINE)
    assert rip is not None
    assert guest.run("p/x $rip") == f"{int(rip[1], 16):#x}\n"
    assert guest.run("info registers -a") == text
    assert re.search(r"^CS =0008 00000000 ffffffff 00c09b00 DPL=0 CS32 \[-RA\]$", text, re.M)


@pytest.mark.kvm
def test_memory_in_every_form(guest: Shell) -> None:
    board, slot = guest.monitor.machine.board, guest.slot
    pc = board.registers(slot)["pc"]
    code = board.read_memory(slot, pc, 16)
    assert guest.run("x/4xb $pc") == f"{pc:016x}: {' '.join(f'{b:#04x}' for b in code[:4])}\n"
    words = [int.from_bytes(code[at : at + 4], "little") for at in range(0, 16, 4)]
    assert guest.run("x/4xw $pc") == f"{pc:016x}: {' '.join(f'0x{w:08x}' for w in words)}\n"
    first, second = guest.run("x/3uw $pc").strip().split(": ")[1].split()[:2]
    assert [int(first), int(second)] == words[:2]
    assert guest.run("xp/2xg $pc") == guest.run("x/2xg $pc")  # the guest does not page
    assert guest.run("p/c 65") == "'A'\n"
    assert guest.run("p/o 8") == "010\n"


@pytest.mark.kvm
def test_code_is_disassembled(guest: Shell) -> None:
    lines = guest.run("x/5i $rip").splitlines()
    assert len(lines) == 5
    addresses = [int(line.partition(":")[0], 16) for line in lines]
    codes = [re.findall(r"\b[0-9a-f]{2}\b", line.partition("  ")[2][:24]) for line in lines]
    assert addresses[0] == guest.monitor.machine.board.registers(guest.slot)["pc"]
    assert addresses[1] - addresses[0] == len(codes[0])


@pytest.mark.kvm
def test_memory_that_is_not_there(guest: Shell) -> None:
    size = 16 << 20  # of the demonstration guest
    assert guest.run(f"xp/1xw {size}") == "Cannot access memory\n"
    shown = guest.run(f"xp/2xw {size - 4}").splitlines()
    assert shown[0].startswith(f"{size - 4:016x}: 0x")
    assert shown[1] == "Cannot access memory"
    assert guest.run(f"xp/1i {size}") == f"{size:#x}: unable to read memory\n"


# --- where people type ---------------------------------------------------------------------


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "error"}


@pytest.mark.kvm
def test_plain_lines_on_a_pipe() -> None:
    done = subprocess.run(
        [*RUN, "--smp", "1,maxcpus=2", "--hmp", "stdio", "--paused", str(DEMO)],
        input="info status\ncpu_set 1 online\ninfo cpus\nquit\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(cpufw) ") == 4
    assert "VM status: paused (prelaunch)" in done.stdout
    assert "  CPU #1: thread_id=" in done.stdout


@pytest.mark.kvm
def test_a_terminal_completes_with_tab() -> None:
    leader, follower = pty.openpty()
    command = [*RUN, "--hmp", "stdio", "--paused", str(DEMO)]
    process = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=subprocess.DEVNULL, env=environment()
    )
    os.close(follower)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            seen += os.read(leader, 4096)

    try:
        until(b"(cpufw) ")
        os.write(leader, b"info stat\t\n")
        until(b"VM status: paused (prelaunch)")
        os.write(leader, b"quit\n")
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)


@pytest.mark.kvm
def test_a_socket_serves_one_client_after_another(tmp_path: Path) -> None:
    path = tmp_path / "hmp"
    process = subprocess.Popen(
        [*RUN, "--hmp", f"unix:{path}", "--paused", str(DEMO)],
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    try:
        wait(path.exists)
        for line in ("info status", "quit"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(f"{line}\n".encode())
                if line == "quit":
                    assert process.wait(PATIENCE) == 0
                    break
                text = b""
                while b"prelaunch)\r\n" not in text:
                    text += client.recv(4096)
        assert not path.exists()
    finally:
        process.kill()
        process.wait()


def test_a_console_and_hmp_cannot_share_standard_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cpufw", "run", "--hmp", "stdio", str(DEMO)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
    )
    assert done.returncode == 2
    assert "cannot share standard input; give the guest --serial" in done.stderr
