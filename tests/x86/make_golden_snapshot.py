"""Write tests/data/snapshots/counting-v1.snap, which every later cpufw has to load.

    python tests/x86/make_golden_snapshot.py

Not to be run again for the same name: the file is what cpufw 0.1.0 wrote. A state that changes
gets a new file beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from counting_guest import counting

from cpufw.framework import Framework
from cpufw.snapshot import encoding
from cpufw.snapshot.description import RECORD
from cpufw.snapshot.stream import StreamReader, StreamWriter

GOLDEN = Path(__file__).parents[1] / "data" / "snapshots" / "counting-v1.snap"
FEATURES = ("fpu", "tsc", "msr", "pae", "cx8", "apic", "cmov", "mmx", "fxsr", "sse", "sse2", "lm")
"""What the guest could have had on any host, which is more than it looks at."""


def make(path: Path) -> int:
    """Save the counting guest with two of three CPUs; returns how many bytes it has sent."""
    framework = Framework(user=False)
    with TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.snap"
        options = {"pages": 2, "memory": "4M", "smp": "2,maxcpus=3"}
        with counting(framework, Path(folder), **options) as (machine, out):
            machine.device_add("qemu64-x86_64-cpu", "third", socket_id=0, core_id=2, thread_id=0)
            machine.pause()
            machine.save(raw)
            sent = len(out)
        with raw.open("rb") as file:
            records = list(StreamReader(file.read, str(raw)))
    with path.open("wb") as file:
        writer = StreamWriter(file.write)
        for record in records:
            if record.name == RECORD:
                state = encoding.decode(record.content, RECORD)
                # A host of another make must be able to load it, and no file of this one is left.
                state["fields"].update(granted=FEATURES, extra=[])
                state["fields"]["board"]["kernel"] = None
                record = record._replace(content=encoding.encode(state))
            writer.record(*record)
        writer.end()
    return sent


if __name__ == "__main__":
    if GOLDEN.exists():
        sys.exit(f"{GOLDEN} is there already: write another version beside it")
    print(f"{GOLDEN}: {make(GOLDEN)} bytes sent before")
