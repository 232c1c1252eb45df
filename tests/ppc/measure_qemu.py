#!/usr/bin/env python3
"""Ask QEMU what its PowerPC models are, beyond their names and PVRs.

    tests/ppc/measure_qemu.py ROOT MODELS > tests/data/qemu10/ppc-facts.json

ROOT is where the packages qemu-system-ppc, qemu-system-data and qemu-user are unpacked (`dpkg -x`),
MODELS the reference's ppc-models.json. For each model: the AT_HWCAP words of a program under
user-mode emulation, the register groups of the gdbstub, those SPRs that tell MMUs apart, and for
each model of pseries the cpu-version that the device tree has in each compatibility mode (null
where QEMU refuses it). Models that QEMU itself cannot create are listed under `broken`.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

AT_HWCAP, AT_HWCAP2 = 16, 26
MODES = ("power6", "power7", "power7+", "power8", "power9", "power10", "power11")
MMU_SPRS = ("zpr", "mmucr", "mas0", "imiss", "sdr1", "ptcr")


# --- AT_HWCAP: a program of eight instructions that writes its stack to stdout -----------------


def program(bits: int, length: int) -> bytes:
    """An ELF file for Linux on big-endian Power: write(1, r1, length); exit(0)."""
    code = struct.pack(
        ">8I",
        *(0x38000004, 0x38600001, 0x7C240B78, 0x38A00000 | length, 0x44000002),
        *(0x38000001, 0x38600000, 0x44000002),
    )
    base = 0x10000000
    ident = bytes([0x7F, *b"ELF", bits // 32, 2, 1]) + bytes(9)
    if bits == 64:
        size = 64 + 56 + len(code)
        head = struct.pack(">HHIQQQIHHHHHH", 2, 21, 1, base + 120, 64, 0, 2, 64, 56, 1, 0, 0, 0)
        segment = struct.pack(">IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x10000)
    else:
        size = 52 + 32 + len(code)
        head = struct.pack(">HHIIIIIHHHHHH", 2, 20, 1, base + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        segment = struct.pack(">IIIIIIII", 1, 0, base, base, size, size, 5, 0x10000)
    return ident + head + segment + code


def hwcap(emulator: Path, bits: int, model: str, folder: Path) -> list[str] | None:
    """AT_HWCAP and AT_HWCAP2 that `model` gives a program, None if it cannot be created."""
    file = folder / f"program{bits}"
    file.write_bytes(program(bits, 480))
    file.chmod(0o755)
    done = subprocess.run(
        [emulator, "-cpu", model, file], env={}, capture_output=True, timeout=60, check=False
    )
    if done.returncode:
        return None
    size = bits // 8
    words = struct.unpack(f">{len(done.stdout) // size}{'IQ'[bits == 64]}", done.stdout)
    index = 1 + words[0] + 1  # argc, argv, its end
    while words[index]:
        index += 1
    auxiliary = dict(zip(words[index + 1 :: 2], words[index + 2 :: 2], strict=False))
    return [f"{auxiliary.get(key, 0):#010x}" for key in (AT_HWCAP, AT_HWCAP2)]


# --- registers: the gdbstub --------------------------------------------------------------------


def registers(emulator: Path, data: Path, model: str, folder: Path) -> dict[str, list[str]] | None:
    """The gdbstub's groups of registers, and the SPRs that tell MMUs apart."""
    path = folder / "gdb"
    path.unlink(missing_ok=True)
    options = ["-machine", "none", "-accel", "tcg", "-display", "none", "-nodefaults", "-S"]
    stub = f"unix:{path},server=on,wait=off"
    command = [str(emulator), "-L", str(data), "-cpu", model, *options, "-gdb", stub]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                try:
                    return _register_groups(path)
                except (FileNotFoundError, ConnectionRefusedError):  # it does not listen yet
                    time.sleep(0.01)
            return None
        finally:
            process.kill()


def _register_groups(path: Path) -> dict[str, list[str]]:
    with socket.socket(socket.AF_UNIX) as stub:
        stub.settimeout(20)
        stub.connect(str(path))
        _ask(stub, "qSupported:xmlRegisters=powerpc")
        files = re.findall(r'include href="([^"]+)"', _document(stub, "target.xml"))
        sprs = set(re.findall(r'reg name="([^"]+)"', _document(stub, "power-spr.xml")))
    groups = [name.removeprefix("power-").removesuffix(".xml") for name in files]
    return {
        "registers": [name for name in groups if name in ("fpu", "altivec", "vsx", "spe")],
        "sprs": [name for name in MMU_SPRS if name in sprs],
    }


def _document(stub: socket.socket, name: str) -> str:
    text, answer = "", "m"
    while answer[:1] == "m":
        answer = _ask(stub, f"qXfer:features:read:{name}:{len(text):x},3f00")
        text += answer[1:]
    return text


def _ask(stub: socket.socket, command: str) -> str:
    stub.sendall(f"${command}#{sum(command.encode()) & 255:02x}".encode())
    received = b""
    while not (found := re.search(rb"\$([^#]*)#..", received, re.DOTALL)):
        received += stub.recv(65536)
    stub.sendall(b"+")
    return found[1].decode("latin-1")


# --- compatibility modes: pseries' device tree -------------------------------------------------


def cpu_version(emulator: Path, data: Path, model: str, mode: str, folder: Path) -> str | None:
    """What the device tree says of `model` in `mode`; None if pseries refuses."""
    tree = folder / "tree.dtb"
    tree.unlink(missing_ok=True)
    commands: Iterator[dict[str, Any]] = iter(
        (
            {"execute": "qmp_capabilities"},
            {"execute": "dumpdtb", "arguments": {"filename": str(tree)}},
            {"execute": "quit"},
        )
    )
    options = ["-accel", "tcg", "-display", "none", "-nodefaults", "-S", "-qmp", "stdio"]
    machine = f"pseries,max-cpu-compat={mode}"
    subprocess.run(
        [emulator, "-L", data, "-machine", machine, "-cpu", model, *options],
        input="\n".join(map(json.dumps, commands)),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    if not tree.exists():
        return None
    value = property_of(tree.read_bytes(), b"cpu-version")
    return f"{int.from_bytes(value, 'big'):#010x}"


def property_of(tree: bytes, wanted: bytes) -> bytes:
    """The value of the first property `wanted` in a flattened device tree (version 17)."""
    _, _, position, strings = struct.unpack(">4I", tree[:16])
    while True:
        (token,) = struct.unpack(">I", tree[position : position + 4])
        position += 4
        if token == 1:  # a node's name
            position = (tree.index(b"\0", position) + 4) & ~3
        elif token == 3:
            length, name = struct.unpack(">II", tree[position : position + 8])
            position += 8
            if tree[strings + name :].startswith(wanted + b"\0"):
                return tree[position : position + length]
            position = (position + length + 3) & ~3
        elif token == 9:
            raise LookupError(wanted)


def main(root: Path, models: Path) -> None:
    """Print what was measured, as JSON."""
    known = json.loads(models.read_text())
    programs, data = root / "usr" / "bin", root / "usr" / "share" / "qemu"
    system = programs / "qemu-system-ppc64"
    facts: dict[str, Any] = {}
    broken = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for model in known["ppc64"]["models"]:
            bits = 32 if model in known["ppc"]["models"] else 64
            emulator = programs / ("qemu-ppc" if bits == 32 else "qemu-ppc64")
            words = hwcap(emulator, bits, model, folder)
            groups = registers(system, data, model, folder)
            if words is None or groups is None:
                broken.append(model)
            else:
                facts[model] = {"hwcap": words, **groups}
        compat = {
            model: {mode: cpu_version(system, data, model, mode, folder) for mode in MODES}
            for model in known["ppc64"]["models"]
            if f"{model}-spapr-cpu-core" in known["ppc64"]["cores"]["spapr-cpu-core"]
        }
    version = subprocess.run([system, "--version"], capture_output=True, text=True, check=True)
    document = {
        "qemu": version.stdout.splitlines()[0],
        "models": facts,
        "broken": broken,
        "compat": compat,
    }
    json.dump(document, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
