"""Pack the names of every CPU model that QEMU has, by architecture, as docs/models.md needs them.

    python tests/data/qemu10/pack_names.py REFERENCE_DIR

Writes `names.json.xz` beside this file.
"""

import json
import lzma
import sys
from pathlib import Path

ARCHITECTURES = ("x86_64", "aarch64", "arm", "ppc64", "ppc", "s390x")

names = {}
for arch in ARCHITECTURES:
    reference = json.loads((Path(sys.argv[1]) / f"{arch}-definitions.json").read_text())
    names[arch] = sorted(model["name"] for model in reference["query-cpu-definitions"])
text = json.dumps(names, separators=(",", ":"))
(Path(__file__).parent / "names.json.xz").write_bytes(lzma.compress(text.encode(), preset=9))
