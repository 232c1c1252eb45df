"""Capturing hosts and reading them back: cpufw's own files and other programs' dumps."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpufw.core.capture import CaptureRules, HostCapture
from cpufw.core.features import FeatureTable
from cpufw.errors import AcceleratorError, CpufwError, DefinitionError, NotFoundError
from cpufw.fleet import capture_file

if TYPE_CHECKING:
    from cpufw.framework import Framework

_HEAD = 1 << 16
_LIMIT = 8 << 20  # bytes; `cpuid -r` of 512 CPUs has 3 MB
_OWN_LIMIT = 1 << 18  # characters of a capture of ours, which has about 15,000
_OWN = re.compile(r"^kind:[ \t]*(\S*)", re.MULTILINE)
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")

_EXPECTED = (
    "expected a file of `cpufw host --capture`, the output of `cpuid -r`, `virsh capabilities` or "
    "`virsh domcapabilities`, or a Firecracker fingerprint"
)


def capture_host(framework: Framework, arch: str, name: str = "this host") -> HostCapture:
    """This host, read through the first accelerator for `arch` that opens.

    Raises `AcceleratorError` if none does, or if hosts of `arch` cannot be captured.
    """
    table = framework.catalogue(arch).table
    rules = _rules(framework, arch)
    if rules is None:
        raise AcceleratorError(f"hosts of architecture {arch} cannot be captured")
    accelerator = framework.accelerator_of(arch)
    try:
        return rules.capture(name, accelerator, table)
    finally:
        accelerator.close()


def write_capture(path: Path, text: str) -> None:
    """Put a capture's text into the file at `path`, whole or not at all.

    Raises `CpufwError`; a file that was there before is then as it was.
    """
    from cpufw.definitions.index import write_atomically

    target = path.resolve()  # through a symbolic link, which stays one
    try:
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and not stat.S_ISREG(mode):
            raise CpufwError(f"{path} is not a file; to print the capture give -")
        if not target.parent.is_dir():
            raise CpufwError(f"{path} cannot be written: there is no folder {target.parent}")
        write_atomically(target, text.encode())
        if mode is not None:
            target.chmod(stat.S_IMODE(mode))
    except OSError as error:
        kept = "; the file that was there is unchanged" if os.path.lexists(path) else ""
        raise CpufwError(f"{path} cannot be written: {error.strerror}{kept}") from None


def load_capture(path: Path | str, framework: Framework | None = None) -> HostCapture:
    """The host in the file at `path`, which is of any format that cpufw knows.

    The report's name of it is the file's, without the ending. `framework` (by default that of the
    package's functions) gives the architectures and their features. Raises `CpufwError` for a
    file that cannot be read or understood, with the line where possible.
    """
    if framework is None:
        from cpufw.framework import default

        framework = default()
    path = Path(path)
    return _Reader(path, framework).read()


class _Reader:
    """Reads one file."""

    def __init__(self, path: Path, framework: Framework) -> None:
        self.path, self.framework = path, framework
        self.name = path.stem

    def read(self) -> HostCapture:
        text = self._text()
        start = text.lstrip()
        if start.startswith("<"):
            return self._libvirt(text)
        if start.startswith("{"):
            return self._foreign(self._json(text))
        kind = _OWN.search(text[:_HEAD])
        if kind:
            return self._own(kind[1], text)
        return self._foreign(text)

    def _text(self) -> str:
        try:
            with self.path.open("rb") as file:
                content = file.read(_HEAD)
                if _CONTROL.search(content):
                    raise self._error("it is a binary file")
                size = os.fstat(file.fileno()).st_size
                if size <= _LIMIT:
                    content += file.read(_LIMIT + 1 - len(content))
        except OSError as error:
            raise CpufwError(f"{self.path} cannot be read: {error.strerror}") from None
        size = max(size, len(content))
        if size > _LIMIT:
            raise CpufwError(f"{self.path} is not a captured host: {size} bytes are too many")
        if not content.strip():
            raise CpufwError(f"{self.path} is empty")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise CpufwError(f"{self.path}:{line}: it is not UTF-8 text") from None

    def _own(self, kind: str, text: str) -> HostCapture:
        if kind != capture_file.KIND:
            raise self._error(f"it is a '{kind}'")
        if len(text) > _OWN_LIMIT:
            raise CpufwError(
                f"{self.path} is not a captured host: {len(text)} characters are too many"
            )
        whole = text.rstrip()
        if whole.rpartition("\n")[2] != capture_file.END:
            lines = whole.count("\n") + 1
            raise CpufwError(
                f"{self.path}:{lines}: it is cut off: the last line is not '{capture_file.END}'"
            )
        capture = capture_file.parse(self.path, text, self.name, self._check_raw)
        self._table(capture.arch)  # an architecture that nobody brings ends here
        capture.rules = _rules(self.framework, capture.arch)
        return capture

    def _check_raw(self, arch: str, text: str) -> None:
        self._table(arch)
        rules = _rules(self.framework, arch)
        if rules is not None:
            rules.check_raw(text)

    def _libvirt(self, text: str) -> HostCapture:
        from cpufw.fleet.libvirt_host import read_libvirt_xml

        arch, host = read_libvirt_xml(str(self.path), self.name, text)
        table = self._table(arch)
        rules = _rules(self.framework, arch)
        if rules is None:
            raise CpufwError(f"{self.path}: hosts of architecture {arch} cannot be captured")
        return rules.read_libvirt(host, table)

    def _foreign(self, document: str | dict[str, Any]) -> HostCapture:
        for arch in self.framework.architectures:
            rules = _rules(self.framework, arch)
            if rules is None:
                continue
            try:
                found = rules.read(self.name, document, self._table(arch))
            except DefinitionError as error:
                line, message = capture_file.line_of(str(error.problems[0]))
                where = f"{self.path}:{line}" if line else str(self.path)
                raise CpufwError(f"{where}: {message}") from None
            if found is not None:
                return found
        raise self._error("nobody knows its format")

    def _json(self, text: str) -> dict[str, Any]:
        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for key, value in pairs:
                if key in found:
                    raise CpufwError(f"{self.path}: JSON: '{key}' is twice in one object")
                found[key] = value
            return found

        try:
            document: dict[str, Any] = json.loads(text, object_pairs_hook=unique)
        except json.JSONDecodeError as error:
            where = f"{self.path}:{error.lineno}:{error.colno}"
            raise CpufwError(f"{where}: JSON syntax: {error.msg}") from None
        except (RecursionError, ValueError):  # a number of thousands of digits
            raise CpufwError(
                f"{self.path}: JSON that is too deep or has numbers too long"
            ) from None
        return document

    def _table(self, arch: str) -> FeatureTable:
        try:
            return self.framework.catalogue(arch).table
        except NotFoundError as error:
            raise CpufwError(f"{self.path}: {error}") from None

    def _error(self, what: str) -> CpufwError:
        return CpufwError(f"{self.path} is not a captured host: {what}; {_EXPECTED}")


def _rules(framework: Framework, arch: str) -> CaptureRules | None:
    make = framework.architectures[arch].capture if arch in framework.architectures else None
    return make() if make is not None else None
