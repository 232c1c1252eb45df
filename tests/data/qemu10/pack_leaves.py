"""Pack the CPUID leaves of a QEMU reference that tests/x86 compares with.

    python tests/data/qemu10/pack_leaves.py REFERENCE_DIR

Writes `x86-leaves.json.xz` beside this file: for each model the unfiltered leaves that are not
zero and the feature words they were made from; the leaves that were asked for; the minimum
levels of each feature.
"""

import json
import lzma
import sys
from pathlib import Path

reference = Path(sys.argv[1])
models = {
    name: {key: record[key] for key in ("leaves", "words")}
    for name, record in json.loads((reference / "x86-leaves.json").read_text())["models"].items()
    if record["leaves"]
}
flags = json.loads((reference / "x86-flag-bits.json").read_text())["flags"]
document = {
    "models": models,
    "asked": sorted({leaf for record in models.values() for leaf in record["leaves"]}),
    "min-levels": {
        name: flag["min_levels"] for name, flag in flags.items() if flag.get("min_levels")
    },
}
text = json.dumps(document, separators=(",", ":"), sort_keys=True)
target = Path(__file__).with_name("x86-leaves.json.xz")
target.write_bytes(lzma.compress(text.encode(), preset=9))
