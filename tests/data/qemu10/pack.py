"""Pack the part of a QEMU reference that tests/cpudefs compares with.

    python tests/data/qemu10/pack.py REFERENCE_DIR

Writes `x86-models.json.xz`, `x86-flag-bits.json.xz` and `x86-machines.json.xz` beside this file.
"""

import json
import lzma
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODEL = ("alias-of", "typename", "features", "unnamed-bits", "words", "vmx")
IDENTITY = (
    "vendor",
    "family",
    "model",
    "stepping",
    "level",
    "level-func7",
    "xlevel",
    "xlevel2",
    "avx10-version",
    "phys-bits",
    "legacy-cache",
    "model-id",
)


def pick(source: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """The part of `source` under `keys`, as far as it has them."""
    return {key: source[key] for key in keys if key in source}


def pack(document: Any, name: str) -> None:
    """Write a document as compact JSON, compressed."""
    text = json.dumps(document, separators=(",", ":"), sort_keys=True)
    (HERE / f"{name}.xz").write_bytes(lzma.compress(text.encode(), preset=9))


reference = Path(sys.argv[1])
models = json.loads((reference / "x86-models.json").read_text())
for name, record in models["models"].items():
    identity = record["identity-properties"]
    models["models"][name] = pick(record, MODEL) | {
        "identity-properties": identity and pick(identity, IDENTITY)
    }
pack(models, "x86-models.json")

flags = json.loads((reference / "x86-flag-bits.json").read_text())["flags"]
bits = {name: {"bits": flag["bits"]} for name, flag in flags.items() if flag["bits"]}
pack({"flags": bits}, "x86-flag-bits.json")

machines = json.loads((reference / "x86-machines.json").read_text())
for record in machines["machines"].values():
    record["cpu-compat-props"] = [
        each for each in record["cpu-compat-props"] if each["qom-type"].endswith("x86_64-cpu")
    ]
pack(machines, "x86-machines.json")
