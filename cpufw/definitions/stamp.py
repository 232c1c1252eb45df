"""The stamp: what the indexes in use were made from, so that a fresh start reads nothing else.

It names the plugins, the index files, every definition file with size and time, and every folder
of `sys.path` with its time: a plugin that is installed, upgraded or removed changes one of those.
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
    # Name, distribution, version, object, arguments of each hook, files.
    PluginPoint: TypeAlias = tuple[str, str, str, str, Mapping[str, Sequence[str]], Signature]

_MAGIC = b"cpufw-stamp-3"


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


def file_signature(path: str) -> list[Any]:
    """Path, size and time of one file. Raises `OSError`."""
    stat = os.stat(path)  # noqa: PTH116
    return [path, stat.st_size, stat.st_mtime_ns]


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


class Stamp:
    """What was recorded, and is still so: the plugins, and each folder's index.

    `indexes` has folder, index file and index in the order in which they were loaded; `sources`
    each folder's signature.
    """

    __slots__ = ("indexes", "plugins", "sources")

    def __init__(
        self,
        plugins: list[PluginPoint],
        indexes: list[tuple[str, str, Index]],
        sources: dict[str, Signature],
    ) -> None:
        self.plugins, self.indexes, self.sources = plugins, indexes, sources


def write_stamp(
    folders: Sequence[str],
    environment: Signature,
    sources: Mapping[str, Signature],
    indexes: Sequence[tuple[str, str, str]],
    plugins: Sequence[PluginPoint] = (),
) -> None:
    """Record that `indexes` (folder, file and key of each) hold what `sources` define.

    `environment` and the sources' signatures are from before they were read, so that what changed
    meanwhile is noticed. A cache that cannot be written is no error: the next start is slower,
    that is all.
    """
    stamp = {
        "environment": environment,
        "sources": dict(sources),
        "indexes": list(indexes),
        "plugins": list(plugins),
    }
    path = stamp_path(folders)
    try:
        if _recorded(path) != stamp:
            write_atomically(path, pack(_MAGIC, __version__, [stamp]))
    except OSError:
        return


def _recorded(path: str) -> dict[str, Any] | None:
    """What the stamp at `path` says, None if it is absent, damaged or of another release."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            found = unpack(_MAGIC, file.read())
    except FileNotFoundError:
        return None
    if found is None or found[0] != __version__:
        return None
    stamp: dict[str, Any] = marshal.loads(found[1][0])
    return stamp


def fresh_stamp(folders: Sequence[str]) -> Stamp | None:
    """The stamp for these user folders if all that it records is still so, else None."""
    try:
        stamp = _recorded(stamp_path(folders))
        if stamp is None or stamp["environment"] != environment():
            return None
        for folder, recorded in stamp["sources"].items():
            if signature(folder) != recorded:
                return None
        for *_, files in stamp["plugins"]:
            if any(file_signature(recorded[0]) != recorded for recorded in files):
                return None
        indexes = []
        for folder, path, key in stamp["indexes"]:
            index = Index.load(path)
            if index is None or index.key != key:
                return None
            indexes.append((folder, path, index))
    except OSError:
        return None
    return Stamp(stamp["plugins"], indexes, stamp["sources"])


def fresh_listing(folders: Sequence[str]) -> list[Row] | None:
    """The rows of `list-models` if the indexes are up to date, else None."""
    stamp = fresh_stamp(folders)
    if stamp is None:
        return None
    return [row for _, _, index in stamp.indexes for row in index.listing()]
