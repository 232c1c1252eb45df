"""Keeps what QEMU answers to `query-qmp-schema`.

    python tests/data/qemu10/measure_schema.py NAME QEMU [-L DIR]…

writes NAME.json.xz beside this file.
"""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path

name, *qemu = sys.argv[1:]
requests = [{"execute": execute} for execute in ("qmp_capabilities", "query-qmp-schema", "quit")]
answered = subprocess.run(
    [*qemu, "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"],
    input="".join(json.dumps(request) for request in requests),
    capture_output=True,
    text=True,
    check=True,
).stdout
schema = next(
    answer["return"]
    for answer in map(json.loads, answered.splitlines())
    if isinstance(answer.get("return"), list)
)
packed = lzma.compress(json.dumps(schema).encode(), preset=9 | lzma.PRESET_EXTREME)
Path(__file__).with_name(f"{name}.json.xz").write_bytes(packed)
