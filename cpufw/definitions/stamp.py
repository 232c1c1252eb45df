"""The stamp: what the indexes in use were made from, so that a fresh start reads nothing else.

It names the index files, every definition file with size and time, and every folder of `sys.path`
with its time: a plugin that is installed, upgraded or removed changes one of those.
"""

from __future__ import annotations

import marshal
import os
import sys
import zlib

from cpufw.definitions.index import Index, pack, unpack, write_atomically
from cpufw.version import __version__

TYPE_CHECKING = False  # importing typing would cost start-up time
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, TypeAlias

    from cpufw.definitions.index import Row

    Signature: TypeAlias = list[list[Any]]

_MAGIC = b"cpufw-stamp-2"


def cache_folder() -> str:
    """Where indexes and stamps are kept: `$XDG_CACHE_HOME/cpufw`, usually `~/.cache/cpufw`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return os.path.join(base, "cpufw")  # noqa: PTH118


def user_folders(given: Iterable[str] = ()) -> list[str]:
    """The definition folders of the user, first those `given`, then the environment's, then home.

    `CPUFW_CPUDEFS` holds folders separated by colons; `~/.config/cpufw/cpudefs` counts if it is
    there.
    """
    folders = [*given, *filter(None, os.environ.get("CPUFW_CPUDEFS", "").split(":"))]
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
    home = os.path.join(base, "cpufw", "cpudefs")  # noqa: PTH118
    if os.path.isdir(home):  # noqa: PTH112
        folders.append(home)
    return list(dict.fromkeys(os.path.abspath(folder) for folder in folders))  # noqa: PTH100


def signature(folder: str) -> Signature:
    """Path, size and time of every definition and schema file under `folder`."""
    found: Signature = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                found.extend(signature(entry.path))
            elif entry.name.endswith((".yaml", ".json")) and entry.is_file():
                stat = entry.stat()
                found.append([entry.path, stat.st_size, stat.st_mtime_ns])
    return found


def environment() -> Signature:
    """Every folder that Python imports from, with its time."""
    found: Signature = []
    for folder in sys.path:
        try:
            found.append([folder, os.stat(folder or ".").st_mtime_ns])  # noqa: PTH116
        except OSError:
            found.append([folder, 0])
    return found


def stamp_path(folders: Sequence[str]) -> str:
    """The stamp file for these user folders under this Python."""
    key = zlib.crc32("\0".join([__version__, sys.prefix, *sys.path, *folders]).encode())
    return os.path.join(cache_folder(), f"stamp-{key:08x}")  # noqa: PTH118


def write_stamp(
    folders: Sequence[str],
    environment: Signature,
    sources: Mapping[str, Signature],
    indexes: Sequence[tuple[str, str]],
) -> None:
    """Record that `indexes` (file and key of each) hold what `sources` define.

    `environment` and the sources' signatures are from before they were read, so that what changed
    meanwhile is noticed. A cache that cannot be written is no error: the next start is slower,
    that is all.
    """
    stamp = {"environment": environment, "sources": dict(sources), "indexes": list(indexes)}
    content, path = pack(_MAGIC, __version__, [stamp]), stamp_path(folders)
    try:
        if _read(path) != content:
            write_atomically(path, content)
    except OSError:
        return


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except FileNotFoundError:
        return b""


def fresh_indexes(folders: Sequence[str]) -> list[Index] | None:
    """The indexes that are known to be up to date for these user folders, or None."""
    try:
        found = unpack(_MAGIC, _read(stamp_path(folders)))
        if found is None or found[0] != __version__:
            return None
        stamp = marshal.loads(found[1][0])
        if stamp["environment"] != environment():
            return None
        for folder, recorded in stamp["sources"].items():
            if signature(folder) != recorded:
                return None
        indexes = []
        for path, key in stamp["indexes"]:
            index = Index.load(path)
            if index is None or index.key != key:
                return None
            indexes.append(index)
    except OSError:
        return None
    return indexes


def fresh_listing(folders: Sequence[str]) -> list[Row] | None:
    """The rows of `list-models` if the indexes are up to date, else None."""
    indexes = fresh_indexes(folders)
    if indexes is None:
        return None
    return [row for index in indexes for row in index.listing()]
