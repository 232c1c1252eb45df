"""The compiled index: a file that loads in milliseconds and is never trusted when damaged.

A header line (checksum, format, key of the sources, lengths), then sections: the listing, the
architectures, the machine types, and for each architecture its features and its models. The listing
alone answers `list-models`; one model is read without the others. Sections are in Python's marshal
format, which needs no import and no parsing; the checksum of all that follows it is what makes
reading it safe.
"""

from __future__ import annotations

import marshal
import os
import zlib

TYPE_CHECKING = False  # importing typing would cost start-up time
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any, TypeAlias

    from cpufw.definitions.compiled import CompiledArch

    Row: TypeAlias = dict[str, Any]
    Record: TypeAlias = dict[str, Any]

_MAGIC = b"cpufw-index-3"
_MARSHAL_VERSION = 4  # read by every Python since 3.4


def listing(compiled: Mapping[str, CompiledArch]) -> list[Row]:
    """One row a model name, as `list-models` shows them."""
    return [
        {
            "name": name,
            "type": arch.type_name(name),
            "alias_of": record["alias_of"],
            "arch": arch.arch,
            "vendor": record["identity"].get("vendor", ""),
            "description": record["description"],
            "deprecated": record["deprecated"],
        }
        for arch in compiled.values()
        for name, record in arch.models.items()
    ]


def dump(compiled: Mapping[str, CompiledArch], key: str) -> bytes:
    """The index file's content for these definitions; `key` identifies their sources."""
    parts: list[Any] = [
        listing(compiled),
        {name: (arch.suffix, arch.model_kind) for name, arch in compiled.items()},
        {name: arch.machines for name, arch in compiled.items() if arch.machines},
    ]
    for arch in compiled.values():
        parts.append(arch.features)
        # Each by itself, so that the others stay as they are when one is read.
        parts.append({name: _dumped(record) for name, record in arch.models.items()})
    return pack(_MAGIC, key, parts)


def _dumped(part: Any) -> bytes:
    return marshal.dumps(part, _MARSHAL_VERSION)


def pack(magic: bytes, key: str, parts: list[Any]) -> bytes:
    """A file's content: a header line with `key` and a checksum, then each part."""
    sections = [_dumped(part) for part in parts]
    header = b" ".join([magic, key.encode(), *(b"%d" % len(part) for part in sections)])
    content = header + b"\n" + b"".join(sections)
    return b"%08x " % zlib.crc32(content) + content


def unpack(magic: bytes, content: bytes) -> tuple[str, list[bytes]] | None:
    """Key and sections of what `pack` wrote; None if it is damaged or of another format."""
    checksum, _, checked = content.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(checked):
        return None
    header, _, body = checked.partition(b"\n")
    found, key, *lengths = header.split(b" ")
    if found != magic:
        return None
    sections, start = [], 0
    for length in map(int, lengths):
        sections.append(body[start : start + length])
        start += length
    return key.decode(), sections


class Records:
    """The record of each model of one architecture by name; each is read when it is asked for."""

    def __init__(self, section: bytes) -> None:
        self._records: dict[str, bytes] = marshal.loads(section)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __getitem__(self, name: str) -> Record:
        record: Record = marshal.loads(self._records[name])
        return record


class Index:
    """A loaded index file; its sections are parsed when first asked for."""

    def __init__(self, key: str, sections: list[bytes]) -> None:
        self.key, self._sections = key, sections
        # The name, type suffix and kind of model file of each architecture.
        self.archs: dict[str, tuple[str, str]] = marshal.loads(sections[1])

    @classmethod
    def parse(cls, content: bytes) -> Index | None:
        """The index in `content`, or None if it is damaged or of another format."""
        found = unpack(_MAGIC, content)
        return cls(*found) if found is not None and len(found[1]) > 2 else None

    @classmethod
    def load(cls, path: Path | str) -> Index | None:
        """The index in the file at `path`, or None if it is absent or damaged."""
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
                return cls.parse(file.read())
        except OSError:
            return None

    def listing(self) -> list[Row]:
        """The rows for `list-models`."""
        rows: list[Row] = marshal.loads(self._sections[0])
        return rows

    def machines(self) -> dict[str, list[dict[str, Any]]]:
        """The documents of kind `machines`, by architecture."""
        documents: dict[str, list[dict[str, Any]]] = marshal.loads(self._sections[2])
        return documents

    def features(self, arch: str) -> list[dict[str, Any]]:
        """The features that these definitions give `arch`, in order; each as it was written."""
        entries: list[dict[str, Any]] = marshal.loads(self._section(arch, 0))
        return entries

    def models(self, arch: str) -> Records:
        """The models that these definitions give `arch`."""
        return Records(self._section(arch, 1))

    def _section(self, arch: str, which: int) -> bytes:
        return self._sections[3 + 2 * list(self.archs).index(arch) + which]

    def compiled(self) -> dict[str, CompiledArch]:
        """The definitions themselves, but for the machine types."""
        from cpufw.definitions.compiled import CompiledArch  # dataclasses cost start-up time

        compiled = {}
        for name, (suffix, kind) in self.archs.items():
            records = self.models(name)
            models = {each: records[each] for each in records}
            compiled[name] = CompiledArch(name, suffix, kind, self.features(name), models)
        return compiled


def write_atomically(path: Path | str, content: bytes) -> None:
    """Write beside, sync, rename: the old file stays in place until the new one is whole."""
    folder = os.path.dirname(path)  # noqa: PTH120 - pathlib costs start-up time
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    beside = f"{path}.{os.getpid()}.new"
    try:
        with open(beside, "wb") as file:  # noqa: PTH123
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)  # noqa: PTH105
    except BaseException:
        if os.path.exists(beside):  # noqa: PTH110
            os.unlink(beside)  # noqa: PTH108
        raise
