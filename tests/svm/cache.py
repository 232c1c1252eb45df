"""Built things that outlive a run, kept outside the tree under a key of what made them."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


def cache_folder() -> Path:
    """`$CPUFW_CACHE/svm-host`, by default in the user's cache folder. Safe to delete."""
    root = os.environ.get("CPUFW_CACHE")
    if root:
        return Path(root) / "svm-host"
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "cpufw" / "svm-host"


def key_of(parts: Iterable[str | bytes]) -> str:
    """A short name for exactly these inputs, in this order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def cached(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder `<kind>-<key>`, filled by `build(folder)` the first time.

    It is built beside and renamed, so a folder under its final name is always complete; a build
    that fails leaves nothing.
    """
    final = cache_folder() / f"{kind}-{key}"
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=final.parent))
    try:
        build(beside)
        beside.chmod(0o755)
        try:
            beside.rename(final)
        except OSError:
            if not final.is_dir():  # otherwise another run was first, with the same content
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return final
