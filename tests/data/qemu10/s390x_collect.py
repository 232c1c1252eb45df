"""Ask QEMU what tests/s390x compares with, and pack the part of the reference that they need.

    python tests/data/qemu10/s390x_collect.py REFERENCE_DIR QEMU [OPTION…]

QEMU is qemu-system-s390x 10.0.2; options such as `-L DIR` go to it. Writes beside this file
`s390x-features.json.xz` (from REFERENCE_DIR's s390x-features.json) and `s390x-answers.json.xz`:
query-cpu-model-comparison and -baseline for every pair of models, static expansions of models with
properties, and for each feature what it requires (QEMU's warnings when all others are off).
"""

import json
import lzma
import random
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NEWEST = "gen17a"
BARE = "-machine none -nodefaults -display none"
MACHINE = "-machine s390-ccw-virtio,accel=tcg -nodefaults -display none -S"
REQUIRES = re.compile(r"'(\S+)' requires '(\S+)'")


class Qmp:
    """A QEMU without a guest, and its monitor."""

    def __init__(self, command: list[str]) -> None:
        ours, theirs = socket.socketpair()
        monitor = f"socket,id=m,fd={theirs.fileno()}"
        self.process = subprocess.Popen(
            [*command, *f"{BARE} -chardev {monitor} -mon chardev=m,mode=control".split()],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.file = ours.makefile("rw")
        self.file.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        """What a command returns, or its error as it is."""
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        answer = json.loads(self.file.readline())
        return answer.get("return", answer)


def requirements(command: list[str], names: list[str]) -> dict[str, list[str]]:
    """What QEMU says that each feature requires directly."""
    found = {}
    for name in names:
        options = ",".join(f"{each}={'on' if each == name else 'off'}" for each in names)
        said = subprocess.run(
            [*command, *MACHINE.split(), "-cpu", f"{NEWEST},{options}"],
            capture_output=True,
            text=True,
        ).stderr
        needed = {match[2] for match in REQUIRES.finditer(said) if match[1] == name}
        if needed:
            found[name] = sorted(needed)
    return found


def changed(models: dict[str, Any], groups: dict[str, list[str]]) -> list[tuple[str, Any]]:
    """Models with up to four properties that do not touch the same features."""
    chance = random.Random(390)
    sample = []
    for _ in range(600):
        name = chance.choice(sorted(models))
        props: dict[str, bool] = {}
        touched: set[str] = set()
        for prop in chance.sample(sorted(models[name]["allow"]), chance.randint(1, 4)):
            members = set(groups.get(prop, [prop]))
            if not members & touched:
                props[prop] = chance.random() < 0.5
                touched |= members
        sample.append((name, props))
    return sample


def pack(document: Any, name: str) -> None:
    """Write a document as compact JSON, compressed."""
    text = json.dumps(document, separators=(",", ":"), sort_keys=True)
    (HERE / f"{name}.xz").write_bytes(lzma.compress(text.encode(), preset=9))


reference = json.loads((Path(sys.argv[1]) / "s390x-features.json").read_text())
qemu = sys.argv[2:]
groups, models = reference["group_members"], reference["models"]
pack(reference, "s390x-features.json")
monitor = Qmp(qemu)
pairs = [(a, b) for a in models for b in models]
answers: dict[str, Any] = {
    what: {
        f"{a}|{b}": monitor.ask(f"query-cpu-model-{what}", modela={"name": a}, modelb={"name": b})
        for a, b in pairs
    }
    for what in ("comparison", "baseline")
}
answers["static"] = [
    [name, props, monitor.ask("query-cpu-model-expansion", type="static", model=model)]
    for name, props in changed(models, groups)
    for model in [{"name": name, "props": props}]
]
monitor.process.terminate()
newest = models[NEWEST]["allow"]
answers["requires"] = requirements(qemu, [name for name in newest if name not in groups])
pack(answers, "s390x-answers.json")
