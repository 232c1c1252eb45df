"""Ask a QEMU what CPUID answers: every model, in topologies, on machine types, with settings.

    python tests/data/qemu10/measure_cpuid.py [--only SECTION] QEMU [-L DIR]…

Writes `x86-cpuid.txt.xz` beside this file. QEMU is a qemu-system-x86_64; `-L` names its data
folders where it is not installed. Needs as and ld. See README.md for the format.
"""

from __future__ import annotations

import lzma
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

from measure_cases import LEVELS, Case, sections

HERE = Path(__file__).parent
LEAVES = [
    *((function, 0) for function in range(4)),
    *((4, index) for index in range(6)),
    (5, 0), (6, 0),
    *((7, index) for index in range(4)),
    (8, 0), (9, 0), (0xA, 0),
    *((0xB, index) for index in range(4)),
    (0xC, 0),
    *((0xD, index) for index in range(21)), (0xD, 62), (0xD, 63),
    (0xE, 0), (0xF, 0), (0xF, 1), (0x10, 0), (0x10, 1), (0x11, 0),
    *((0x12, index) for index in range(4)),
    (0x13, 0), (0x14, 0), (0x14, 1), (0x14, 2), (0x15, 0), (0x16, 0), (0x17, 0), (0x18, 0),
    (0x19, 0), (0x1A, 0), (0x1B, 0), (0x1C, 0),
    (0x1D, 0), (0x1D, 1), (0x1D, 2), (0x1E, 0), (0x1E, 1),
    *((0x1F, index) for index in range(6)),
    (0x20, 0), (0x21, 0), (0x22, 0), (0x23, 0), (0x24, 0), (0x24, 1), (0x25, 0), (0x100, 0),
    *((0x40000000 + function, 0) for function in range(3)), (0x40000010, 0), (0x40000100, 0),
    *((0x80000000 + function, 0) for function in range(0x1D)),
    *((0x8000001D, index) for index in range(6)),
    *((0x8000001E + function, 0) for function in range(8)), (0x80000026, 1), (0x80000100, 0),
    *((0xC0000000 + function, 0) for function in range(6)), (0xFFFFFFFF, 0),
]  # fmt: skip
RECORD = 4 + 16 * len(LEAVES)


@dataclass(frozen=True)
class Qemu:
    """A QEMU to ask."""

    command: tuple[str, ...]
    work: Path

    @cache  # noqa: B019 - lives as long as the program
    def image(self, cpus: int) -> Path:
        """The guest for so many CPUs."""
        image = self.work / f"guest{cpus}.bin"
        compiled = str(image.with_suffix(".o"))
        table = "; ".join(f".long {function:#x}, {index}" for function, index in LEAVES)
        text = (HERE / "cpuid_guest.S").read_text().replace("LEAVES\n", table + "\n")
        source = f".set CPUS, {cpus}\n{text}"
        subprocess.run(["as", "--32", "-o", compiled], input=source, text=True, check=True)
        flat = ["-melf_i386", "-Ttext=0", "--oformat", "binary"]
        subprocess.run(["ld", *flat, compiled, "-o", str(image)], check=True)
        return image

    def ask(self, case: Case) -> dict[int, list[str]]:
        """By APIC id, one line a leaf that is not zero. Raises `RuntimeError`."""
        with tempfile.NamedTemporaryFile(dir=self.work) as output:
            command = [*self.command, "-M", case.machine, "-accel", "tcg", "-nodefaults"]
            command += ["-display", "none", "-vga", "none", "-bios", str(self.image(case.cpus))]
            command += ["-debugcon", f"file:{output.name}", *options(case)]
            command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
            try:
                result = subprocess.run(command, capture_output=True, timeout=60, check=False)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"{case.head}: no end; {' '.join(command)}") from None
            answers = Path(output.name).read_bytes()
        if len(answers) != case.cpus * RECORD:
            message = result.stderr.decode().strip().splitlines()[-1:]
            raise RuntimeError(f"{case.head}: {len(answers)} bytes; {message}")
        found = {}
        for start in range(0, len(answers), RECORD):
            apic_id, *words = struct.unpack_from(f"<{RECORD // 4}I", answers, start)
            found[apic_id] = [
                f"{function:x}.{index} " + " ".join(f"{word:x}" for word in words[at : at + 4])
                for at, (function, index) in zip(range(0, len(words), 4), LEAVES, strict=True)
                if any(words[at : at + 4])
            ]
        return found


def options(case: Case) -> Iterator[str]:
    """The options that give the guest its CPUs."""
    counts = case.counts
    total = prod(counts.values())
    shape = ",".join(f"{level}={count}" for level, count in counts.items())
    everything = case.slots == tuple(range(total))
    smp = f"{total},{shape}" if everything else f"1,{shape},maxcpus={total}"
    yield from ("-smp", smp, "-cpu", f"{case.cpu},x-force-features=on")
    for slot in () if everything else case.slots:
        if slot:
            ids, rest = [], slot
            for level in reversed(LEVELS):
                rest, position = divmod(rest, counts.get(level + "s", 1))
                if level + "s" in counts:
                    ids.append(f"{level}-id={position}")
            name = case.cpu.split(",")[0]
            yield from ("-device", ",".join([f"{name}-x86_64-cpu", *ids]))


def body(reports: dict[int, list[str]]) -> str:
    """The lines of a case: a line without `@` holds for every CPU."""
    ids = sorted(reports)
    common = [line for line in reports[ids[0]] if all(line in reports[id] for id in ids)]
    own = [
        f"@{apic_id} {line}" for apic_id in ids for line in reports[apic_id] if line not in common
    ]
    return "\n".join([*common, *own])


def main(arguments: list[str]) -> int:
    """Measure every case; the exit status."""
    only = arguments[1] if arguments[:1] == ["--only"] else None
    command = tuple(arguments[2:] if only else arguments)
    cases = [case for name, part in sections().items() if only in (None, name) for case in part]
    grouped: dict[tuple[str, str, str, str], list[str]] = {}
    failures = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        qemu = Qemu(command, Path(folder))
        for cpus in sorted({case.cpus for case in cases}):
            qemu.image(cpus)  # now: later two threads may want it at once

        def measure(case: Case) -> str | Exception:
            try:
                return body(qemu.ask(case))
            except RuntimeError as error:
                return error

        for case, answer in zip(cases, pool.map(measure, cases), strict=True):
            if isinstance(answer, Exception):
                print(answer, file=sys.stderr)
                failures += 1
                continue
            slots = ",".join(map(str, case.slots))
            grouped.setdefault((case.cpu, case.smp, slots, answer), []).append(case.machine)
    text = " ".join(f"{function:x}.{index}" for function, index in LEAVES) + "\n"
    text += "".join(
        f"[{' '.join(machines)} | {cpu} | {smp} | {slots}]\n{answer}\n"
        for (cpu, smp, slots, answer), machines in grouped.items()
    )
    packed = lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)
    target = HERE / "x86-cpuid.txt.xz" if only is None else Path(f"x86-cpuid-{only}.txt.xz")
    target.write_bytes(packed)
    print(f"{len(cases)} cases, {len(grouped)} different, {len(packed)} bytes, {failures} failed")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
