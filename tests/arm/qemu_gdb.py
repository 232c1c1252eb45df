"""A QEMU Arm machine stopped at reset, and its registers as gdb and instructions show them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

KEPT = re.compile(
    r"(ID_|MVFR|MIDR|MPIDR|REVIDR|DCZID|AIDR|TCMTR|TLBTR|H?MPUIR|MPU_TYPE|DBGDIDR|DBGDEVID|PMCEID|"
    r"PMCR|CBAR|L2CTLR|CPUCFR|CNTFRQ|SMIDR|LORID|ERRIDR|PMMIR|MDRAR|[DI]CACHE_CFG|FPSID|"
    r"CLIDR|CTR_EL0|(CTR|CPUID|SCTLR|ACTLR|ACTLR_EL1|CPUECTLR_EL1)$).*"
)
DROPPED = re.compile(r".*(_S|RESERVED)|RES_0.*")
RAM = {"none": 0x10000, "virt": 0x40000000}

# What a debugger is not shown, as op0, op1, CRn, CRm, op2 (AArch64) or opc1, CRn, CRm, opc2.
A64_READS = {
    "MIDR_EL1": (3, 0, 0, 0, 0),
    "MPIDR_EL1": (3, 0, 0, 0, 5),
    "ID_PFR1": (3, 0, 0, 1, 1),
    "ID_AA64PFR0_EL1": (3, 0, 0, 4, 0),
    "DCZID_EL0": (3, 3, 0, 0, 7),
}
A32_READS = {"MPIDR": (0, 0, 0, 5), "ID_PFR1": (0, 0, 1, 1)}
VMRS = {"FPSID": 0xEEF00A10, "MVFR0": 0xEEF70A10, "MVFR1": 0xEEF60A10, "MVFR2": 0xEEF50A10}
ENABLE_VFP = (0xEE110F50, 0xE380060F, 0xEE010F50)  # CPACR |= full access to CP10 and CP11
CACHES = 14  # values of CSSELR: seven levels, data and instruction


class RefusedError(Exception):
    """QEMU did not start; the text is what it said."""


class Emulator:
    """One QEMU that has not executed anything."""

    def __init__(self, binary: Path, machine: str, cpu: str, *options: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        gdb, qmp = (Path(self._folder.name) / name for name in ("gdb", "qmp"))
        self.machine = machine.partition(",")[0].partition("-")[0]
        memory = ["-m", "64M"] if self.machine in RAM else []
        sockets = [
            *("-gdb", f"unix:{gdb},server=on,wait=off"),
            *("-qmp", f"unix:{qmp},server=on,wait=off"),
        ]
        basics = ["-S", "-display", "none", "-nodefaults", "-accel", "tcg,tb-size=8"]
        self._process = subprocess.Popen(
            [str(binary), "-machine", machine, "-cpu", cpu, *basics, *sockets, *memory, *options],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self._gdb = self._connect(gdb)
        self._buffer = b""
        self._qmp = self._connect(qmp).makefile("rw")
        self._qmp.readline()
        self.ask("qmp_capabilities")
        self._numbers = self._layout()

    def __enter__(self) -> Emulator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._gdb.close()
        self._qmp.close()
        self._folder.cleanup()

    def _connect(self, path: Path) -> socket.socket:
        for _ in range(1000):
            if self._process.poll() is not None:
                _, said = self._process.communicate()
                self._folder.cleanup()
                raise RefusedError(re.sub(r"^\S*qemu-system-\w+: ", "", said.strip()))
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(path))
            except OSError:
                connection.close()
                time.sleep(0.01)
            else:
                connection.settimeout(20)
                return connection
        raise TimeoutError(f"{path} is not there")

    # --- QMP ---------------------------------------------------------------------------

    def ask(self, command: str, **arguments: Any) -> Any:
        """The answer of a QMP command; an error is `{"error": …}`."""
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._qmp.flush()
        while True:
            answer = json.loads(self._qmp.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                return answer

    def property(self, name: str, cpu: int = 0) -> Any:
        path = self.ask("query-cpus-fast")[cpu]["qom-path"]
        return self.ask("qom-get", path=path, property=name)

    # --- gdb ---------------------------------------------------------------------------

    def command(self, text: str) -> bytes:
        """The stub's answer to a packet."""
        data = text.encode()
        self._gdb.sendall(b"$" + data + b"#%02x" % (sum(data) & 0xFF))
        while True:
            found = re.search(rb"\$(.*?)#..", self._buffer, re.DOTALL)
            if found:
                self._buffer = self._buffer[found.end() :]
                self._gdb.sendall(b"+")
                escaped = re.compile(rb"\}(.)", re.DOTALL)
                return escaped.sub(lambda m: bytes([m[1][0] ^ 0x20]), found[1])
            self._buffer += self._gdb.recv(65536)

    def _description(self, name: str) -> str:
        text = b""
        while True:
            part = self.command(f"qXfer:features:read:{name}:{len(text):x},ffb")
            text += part[1:]
            if part[:1] != b"m":
                return text.decode()

    def _layout(self) -> dict[str, tuple[int, str]]:
        found: dict[str, tuple[int, str]] = {}
        number = 0
        for file in re.findall(r'href="([^"]+)"', self._description("target.xml")):
            for entry in re.findall(r"<reg ([^>]*)>", self._description(file)):
                attributes = dict(re.findall(r'(\w+)="([^"]*)"', entry))
                number = int(attributes.get("regnum", number))
                found.setdefault(attributes["name"], (number, file))
                number += 1
        return found

    def _get(self, number: int) -> int:
        return int.from_bytes(bytes.fromhex(self.command(f"p{number:x}").decode()), "little")

    def memory(self, address: int) -> int | None:
        """The word at `address`, None where nothing answers."""
        answer = self.command(f"m{address:x},4").decode()
        return None if answer[:1] == "E" else int.from_bytes(bytes.fromhex(answer), "little")

    def run(self, *words: int) -> int | None:
        """What X0 or R0 holds after these instructions, None if one of them is undefined."""
        wide = "x0" in self._numbers
        pc, _ = self._numbers["pc"]
        start = RAM[self.machine]
        code = b"".join(word.to_bytes(4, "little") for word in words)
        self.command(f"M{start:x},{len(code):x}:{code.hex()}")
        self.command(f"P{pc:x}=" + start.to_bytes(8 if wide else 4, "little").hex())
        for _ in words:
            self.command("s")
        return self._get(0) if self._get(pc) == start + len(code) else None

    # --- ID registers ------------------------------------------------------------------

    def id_registers(self) -> dict[str, str]:
        """Every ID register by name, in hexadecimal."""
        shown = {
            name: self._get(number)
            for name, (number, file) in self._numbers.items()
            if file == "system-registers.xml"
            and KEPT.fullmatch(name)
            and not DROPPED.fullmatch(name)
        }
        read = self._read_a64() if "x0" in self._numbers else self._read_a32(shown)
        return {name: hex(value) for name, value in {**shown, **read}.items()}

    def _read_a64(self) -> dict[str, int]:
        def mrs(place: tuple[int, ...], base: int = 0xD5300000) -> int:
            op0, op1, crn, crm, op2 = place
            return base | op0 - 2 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5

        found = {name: self.run(0xD2800000, mrs(place)) for name, place in A64_READS.items()}
        for index in range(CACHES):
            select = (0xD2800001 | index << 5, mrs((3, 2, 0, 0, 0), 0xD5100000) | 1)
            found[f"CCSIDR{index}"] = self.run(*select, mrs((3, 1, 0, 0, 0))) or None
        return {name: value for name, value in found.items() if value is not None}

    def _read_a32(self, shown: dict[str, int]) -> dict[str, int]:
        def mrc(place: tuple[int, ...], base: int = 0xEE100F10) -> int:
            opc1, crn, crm, opc2 = place
            return base | opc1 << 21 | crn << 16 | opc2 << 5 | crm

        found = {name: self.run(0xE3A00000, mrc(place)) for name, place in A32_READS.items()}
        if found["MPIDR"] in (shown["MIDR"], 0):  # there is none: MIDR shows in its place
            del found["MPIDR"]
        if "ID_PFR0" not in shown:
            del found["ID_PFR1"]
        for index in range(CACHES):
            select = (0xE3A01000 | index, mrc((2, 0, 0, 0), 0xEE000F10) | 1 << 12)
            found[f"CCSIDR{index}"] = self.run(*select, mrc((1, 0, 0, 0))) or None
        self.run(*ENABLE_VFP)
        for name, instruction in VMRS.items():
            found[name] = self.run(0xE3A000EE, instruction)
        return {name: value for name, value in found.items() if value is not None}
