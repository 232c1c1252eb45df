"""libvirt's `<cpu>` element."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from cpufw.core.features import FeatureTable
from cpufw.errors import FormatError
from cpufw.formats.format import Exported, Imported, Models
from cpufw.formats.libvirt_cpu import MODES, LibvirtCPU, describe, resolve
from cpufw.formats.libvirt_names import LibvirtNames
from cpufw.formats.text import parse_xml

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from cpufw.core.cpu import CPUState

_WHERE = {
    "cpu": ".",
    "domain": "cpu",
    "capabilities": "host/cpu",
    "domainCapabilities": "cpu/mode[@name='host-model']",
}
"""Where a CPU is in each of libvirt's documents."""

_MAX_DIGITS = 10
_XML = re.compile(r"\s*<[?!a-zA-Z]")
_UNDERSTOOD = {"model", "vendor", "feature", "maxphysaddr", "cache", "arch"}
_OF_THE_HOST = {"microcode", "signature", "counter", "pages", "topology", "enum", "numa"}
"""What libvirt tells beside of a host's CPU, or of a guest's, that is not its model."""


class LibvirtXml:
    """`<cpu>` with libvirt's own models; reads domains and capabilities too.

    `names` gives libvirt's words for the features and models of the architecture.
    """

    def __init__(
        self, arch: str, names: Callable[[FeatureTable], LibvirtNames] = LibvirtNames
    ) -> None:
        self.arch, self._names = arch, names

    def recognises(self, text: str) -> bool:
        """Whether this is XML."""
        return bool(_XML.match(text))

    def write(self, cpu: CPUState, models: Models) -> Exported:
        """The `<cpu>` element of a domain."""
        from xml.etree.ElementTree import Element, SubElement, indent, tostring

        described, lost = describe(cpu, models, self._names(models.catalogue(self.arch).table))
        root = Element("cpu", mode=described.mode)
        if described.mode == "custom":
            root.set("match", "exact")
        if described.check is not None:
            root.set("check", described.check)
        if described.model is not None:
            model = SubElement(root, "model", fallback="forbid")
            model.text = described.model
            if described.vendor_id is not None:
                model.set("vendor_id", described.vendor_id)
        if described.vendor is not None and described.vendor_id is None:
            SubElement(root, "vendor").text = described.vendor
        if described.phys_bits is not None:
            SubElement(root, "maxphysaddr", mode="emulate", bits=str(described.phys_bits))
        if described.l3_cache is not None:
            mode = {"level": "3", "mode": "emulate"} if described.l3_cache else {"mode": "disable"}
            SubElement(root, "cache", mode)
        for name, policy in described.features:
            SubElement(root, "feature", policy=policy, name=name)
        indent(root)
        text = tostring(root, encoding="unicode").replace(" />", "/>")  # as libvirt writes it
        return Exported(text + "\n", lost)

    def read(self, text: str, models: Models) -> Imported:
        """The CPU of a `<cpu>`, `<domain>`, `<capabilities>` or `<domainCapabilities>`."""
        element = self._cpu_element(parse_xml(text))
        found = element.findtext("arch")
        if found is not None and found.strip() != self.arch:
            raise FormatError(f"this is a CPU of {found.strip()}, not of {self.arch}")
        notes = []
        for child in element:
            if child.tag in _OF_THE_HOST:
                notes.append(f"<{child.tag}> is not part of a CPU model")
            elif child.tag not in _UNDERSTOOD:
                notes.append(f"<{child.tag}> is not known here and left out")
        described = self._described(element, notes)
        read = resolve(described, self.arch, models, self._names(models.catalogue(self.arch).table))
        return Imported(read.request, (*dict.fromkeys(notes), *read.notes))

    @staticmethod
    def _cpu_element(root: Element) -> Element:
        if root.tag not in _WHERE:
            known = ", ".join(f"<{name}>" for name in _WHERE)
            raise FormatError(f"<{root.tag}> is none of libvirt's documents with a CPU: {known}")
        element = root.find(_WHERE[root.tag])
        if element is None:
            raise FormatError(f"<{root.tag}> has no CPU: {_WHERE[root.tag]} is missing")
        return element

    @staticmethod
    def _described(element: Element, notes: list[str]) -> LibvirtCPU:
        modes = {"custom", "host-model", *MODES.values()}
        mode = "custom" if element.tag == "mode" else element.get("mode", "custom")
        if mode not in modes:
            raise FormatError(f"mode '{mode}' is not known; there is {', '.join(sorted(modes))}")
        match = element.get("match", "exact")
        if match == "minimum":
            notes.append("match 'minimum' is taken as 'exact': what the host has more is left out")
        elif match == "strict":
            notes.append("match 'strict' is taken as 'exact': a host that has more is not refused")
        elif match != "exact":
            raise FormatError(f"match '{match}' is not known; there is minimum, exact, strict")
        if element.get("migratable") == "off":
            notes.append("migratable 'off': features that tie a guest to its host must be named")
        model = element.find("model")
        name = (model.text or "").strip() if model is not None else ""
        vendor = element.findtext("vendor")
        return LibvirtCPU(
            mode=mode,
            model=name or None,
            vendor=vendor.strip() if vendor is not None else None,
            vendor_id=model.get("vendor_id") if model is not None else None,
            phys_bits=_phys_bits(element.find("maxphysaddr"), notes),
            l3_cache=_l3_cache(element.find("cache"), notes),
            check=element.get("check"),
            features=tuple(_feature(each) for each in element.findall("feature")),
        )


def _feature(element: Element) -> tuple[str, str]:
    name = element.get("name")
    if not name:
        raise FormatError("a <feature> has no name")
    return name, element.get("policy", "require")


def _phys_bits(element: Element | None, notes: list[str]) -> int | None:
    if element is None:
        return None
    bits = element.get("bits", "")
    if element.get("mode") == "emulate" and bits.isdecimal() and len(bits) < _MAX_DIGITS:
        return int(bits)
    if element.get("mode") != "emulate":
        notes.append("<maxphysaddr>: the host's address bits are left to the model")
        return None
    raise FormatError(f"maxphysaddr: bits='{bits[:_MAX_DIGITS]}' is not a number of bits")


def _l3_cache(element: Element | None, notes: list[str]) -> bool | None:
    mode = element.get("mode") if element is not None else None
    if mode == "passthrough":
        notes.append("<cache mode='passthrough'>: the host's caches are left out")
    return {"emulate": True, "disable": False}.get(mode or "")
