"""Which formats there are, which one a text is in, and for which architecture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cpufw.errors import CpufwError, FormatError, NotFoundError
from cpufw.formats.format import Codec, Format, Imported, Models
from cpufw.formats.text import check_size


def _libvirt(arch: str) -> Codec:
    from cpufw.formats.libvirt import LibvirtXml

    return LibvirtXml(arch)


def _kubevirt(arch: str) -> Codec:
    from cpufw.formats.kubevirt import KubevirtSpec

    return KubevirtSpec(arch)


def _kubevirt_node(arch: str) -> Codec:
    from cpufw.formats.kubevirt import KubevirtNode

    return KubevirtNode(arch)


def _qemu(arch: str) -> Codec:
    from cpufw.formats.qemu import QemuString

    return QemuString(arch)


EVERY_ARCHITECTURE = (
    Format("libvirt", "libvirt's <cpu> XML", _libvirt),
    Format("kubevirt-node", "KubeVirt's labels of a node", _kubevirt_node),
    Format("kubevirt", "a KubeVirt VirtualMachine's spec", _kubevirt),
    Format("qemu", "QEMU's -cpu string", _qemu),
)
"""The formats that need to know nothing of an architecture."""

_VAGUE = ("kubevirt", "qemu")
"""Those that other texts look like too: they are asked last."""


@dataclass(frozen=True)
class Reading:
    """What was read, in which format and for which architecture."""

    imported: Imported
    format: str
    arch: str


class Formats:
    """The formats of plugins, and those that every architecture has.

    A plugin's format of an architecture goes before cpufw's own of the same name.
    """

    def __init__(self, of_plugins: Iterable[Format] = ()) -> None:
        self._all = (*of_plugins, *EVERY_ARCHITECTURE)

    def of(self, arch: str) -> dict[str, Format]:
        """The formats for models of `arch`, by name."""
        found: dict[str, Format] = {}
        for each in self._all:
            if each.arch in (None, arch):
                found.setdefault(each.name, each)
        return found

    def codec(self, name: str, arch: str) -> Codec:
        """What writes and reads the format `name` for `arch`. Raises `NotFoundError`."""
        known = self.of(arch)
        if name not in known:
            raise NotFoundError(f"{arch} format", name, known)
        return known[name].codec(arch)

    def read(
        self, text: str, models: Models, archs: Sequence[str], name: str | None = None
    ) -> Reading:
        """The CPU that `text` describes, for the first of `archs` that has its model.

        Without a `name` the format is the first that recognises the text. Raises `FormatError`
        where there is none, and what the format raises.
        """
        check_size(text)
        if name is None:
            name = self.recognise(text, archs)
        codecs = {arch: self.codec(name, arch) for arch in archs if name in self.of(arch)}
        if not codecs:
            raise NotFoundError("format", name, self._names(archs))
        first: CpufwError | None = None
        # Where architectures have formats of one name that look different, the text tells them.
        fitting = [arch for arch, codec in codecs.items() if codec.recognises(text)]
        for arch in fitting or codecs:
            try:
                return Reading(codecs[arch].read(text, models), name, arch)
            except (NotFoundError, FormatError) as error:
                # Another architecture may have the model; if none has, the nearest name counts.
                better = isinstance(error, NotFoundError) and error.near
                if first is None or (better and not getattr(first, "near", ())):
                    first = error
        assert first is not None
        raise first

    def recognise(self, text: str, archs: Sequence[str]) -> str:
        """The name of the first format that `text` looks like. Raises `FormatError`."""
        known = self._names(archs)
        for name in known:
            for arch in archs:
                if name in self.of(arch) and self.codec(name, arch).recognises(text):
                    return name
        raise FormatError(f"this is none of the formats {', '.join(known)}; say which with --from")

    def _names(self, archs: Sequence[str]) -> list[str]:
        """The names of the formats, those last that other texts look like too."""
        names = dict.fromkeys(each.name for each in self._all if each.arch in (None, *archs))
        return [*(name for name in names if name not in _VAGUE), *_VAGUE]
