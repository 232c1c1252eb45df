"""Keeps what QEMU's QMP server answers to malformed input, each line on a fresh connection.

    python tests/data/qemu10/measure_malformed.py INPUTS SOCKET

reads the first column of INPUTS, a file as qmp-malformed.txt, asks the server at the unix socket
SOCKET (`-machine none -qmp unix:SOCKET,server=on,wait=off`), and writes INPUTS anew: a line
`input`, then a line `  answer` for each answer. Input is in Python's notation of bytes.
"""

from __future__ import annotations

import ast
import json
import socket
import sys
from pathlib import Path

MARK = b'\n{"execute": "query-name", "id": "mark"}\n'


def ask(path: str, text: bytes) -> list[dict[str, object]]:
    """The answers to `text`, until the mark's own."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        lines = client.makefile("rb")
        lines.readline()
        client.sendall(b'{"execute": "qmp_capabilities"}')
        lines.readline()
        client.sendall(text + MARK)
        answers = []
        while (answer := json.loads(lines.readline())).get("id") != "mark":
            answers.append(answer)
        return answers


if __name__ == "__main__":
    inputs, path = sys.argv[1:]
    written = []
    for line in Path(inputs).read_text().splitlines():
        if line and not line.startswith(("  ", "#")):
            written.append(line)
            for answer in ask(path, ast.literal_eval(line)):
                written.append("  " + json.dumps(answer, sort_keys=True))
    Path(inputs).write_text("\n".join(written) + "\n")
