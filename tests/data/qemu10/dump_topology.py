"""Ask a QEMU what CPUID answers in some topologies, on every CPU.

    python tests/data/qemu10/dump_topology.py QEMU [-L DIR]… > tests/data/qemu10/x86-topology.txt

QEMU is a qemu-system-x86_64; `-L` names its data folders where it is not installed. Needs gcc and
ld. A line without `@` holds for every CPU, one with `@` for the CPU of that APIC id.
"""

import struct
import subprocess
import sys
import tempfile
from pathlib import Path

GUEST = Path(__file__).with_name("topology_guest.S")
LEAVES = [
    (0, 0),
    (1, 0),
    *((4, index) for index in range(5)),
    *((0xB, index) for index in range(4)),
    *((0x1F, index) for index in range(5)),
    (0x80000001, 0),
    (0x80000008, 0),
    *((0x8000001D, index) for index in range(5)),
    (0x8000001E, 0),
]
CASES = [
    # -cpu, -smp, how many CPUs are there (1: the first alone, the rest are empty slots)
    ("SapphireRapids", "sockets=2,dies=2,modules=2,cores=3,threads=2", 48),
    ("Haswell", "sockets=1,modules=3,cores=2,threads=1", 6),
    ("Haswell", "sockets=1,dies=1,cores=128,threads=2", 1),
    ("EPYC-Genoa,+x2apic", "sockets=2,dies=2,cores=3,threads=2", 24),
    ("Dhyana,+x2apic", "sockets=2,dies=1,cores=5,threads=2", 20),
    ("YongFeng", "sockets=1,dies=2,cores=2,threads=1", 4),
    ("qemu64,+x2apic,xlevel=0x8000001e", "sockets=1,dies=1,cores=2,threads=2", 4),
    ("athlon", "sockets=2,dies=1,cores=2,threads=1", 1),
    ("pentium3", "sockets=2,dies=1,cores=2,threads=1", 1),
]


def dump(qemu: list[str], cpu: str, smp: str, cpus: int) -> list[dict[str, str]]:
    """Registers by leaf for each CPU, in the order in which they reported."""
    with tempfile.TemporaryDirectory() as folder:
        image, output = Path(folder, "guest.bin"), Path(folder, "out")
        table = "; ".join(f".long {function:#x}, {index}" for function, index in LEAVES)
        defines = [f"-DCPUS={cpus}", f"-DLEAVES={table}"]
        compiled = str(image.with_suffix(".o"))
        subprocess.run(["gcc", "-m32", "-c", *defines, str(GUEST), "-o", compiled], check=True)
        flat = ["-melf_i386", "-Ttext=0", "--oformat", "binary"]
        subprocess.run(["ld", *flat, compiled, "-o", str(image)], check=True)
        command = [*qemu, "-M", "q35", "-accel", "tcg", "-nodefaults", "-display", "none"]
        command += ["-vga", "none", "-bios", str(image), "-debugcon", f"file:{output}"]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        total = smp if cpus > 1 else f"1,{smp},maxcpus={_size(smp)}"
        command += ["-smp", total, "-cpu", f"{cpu},x-force-features=on"]
        subprocess.run(command, stderr=subprocess.DEVNULL, timeout=120, check=False)
        answers = list(struct.iter_unpack("<4I", output.read_bytes()))
    assert len(answers) == cpus * len(LEAVES), f"{cpu}: {len(answers)} answers"
    names = [f"{function:x}.{index}" for function, index in LEAVES]
    return [
        dict(zip(names, (" ".join(f"{r:08x}" for r in answer) for answer in part), strict=True))
        for part in (answers[i : i + len(names)] for i in range(0, len(answers), len(names)))
    ]


def _size(smp: str) -> int:
    size = 1
    for part in smp.split(","):
        size *= int(part.split("=")[1])
    return size


for cpu, smp, cpus in CASES:
    reports = dump(sys.argv[1:], cpu, smp, cpus)
    print(f"[{cpu} | {smp} | {cpus}]")
    by_id = sorted((int(report["1.0"].split()[1][:2], 16), report) for report in reports)
    for leaf in reports[0]:
        same = len({report[leaf] for report in reports}) == 1
        for apic_id, report in by_id[:1] if same else by_id:
            print(leaf if same else f"{leaf} @{apic_id}", report[leaf])
