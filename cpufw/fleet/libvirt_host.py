"""Hosts as libvirt describes them: `virsh capabilities` and `virsh domcapabilities`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpufw.core.capture import LibvirtHost, Tsc
from cpufw.errors import CpufwError

_ROOTS = {
    "capabilities": ("host/cpu", "host/cpu/arch", "virsh capabilities"),
    "domainCapabilities": ("cpu/mode[@name='host-model']", "arch", "virsh domcapabilities"),
}


def read_libvirt_xml(path: str, name: str, text: str) -> tuple[str, LibvirtHost]:
    """The architecture and the host that the XML in `text` describes; `path` is for messages.

    Raises `CpufwError` for XML that is malformed, has a document type, or is of another kind.
    """
    root = _parse(path, text)
    if root.tag not in _ROOTS:
        raise CpufwError(
            f"{path}: <{root.tag}> is no description of a host, expected the output of "
            "virsh capabilities or virsh domcapabilities"
        )
    where, arch_at, source = _ROOTS[root.tag]
    cpu, arch = root.find(where), (root.findtext(arch_at) or "").strip()
    if cpu is None or not arch:
        raise CpufwError(f"{path}: <{root.tag}> has no {where if cpu is None else arch_at}")
    if cpu.get("supported", "yes") != "yes":
        raise CpufwError(f"{path}: this host does not support host-model, so its CPU is not told")
    listed = [(each.get("name", ""), each.get("policy", "require")) for each in cpu.iter("feature")]
    disabled = frozenset(name for name, policy in listed if policy in ("disable", "forbid"))
    return arch, LibvirtHost(
        name=name,
        source=source,
        model=(cpu.findtext("model") or "").strip(),
        vendor=(cpu.findtext("vendor") or "").strip(),
        features=frozenset(name for name, _ in listed) - disabled,
        disabled=disabled,
        signature={
            key: _number(path, value)
            for each in cpu.iter("signature")
            for key, value in each.attrib.items()
            if key in ("family", "model", "stepping")
        },
        phys_bits=_phys_bits(path, cpu),
        tsc=_tsc(path, cpu),
        microcode=next((each.get("version", "") for each in cpu.iter("microcode")), ""),
    )


def _parse(path: str, text: str) -> Any:
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(text, forbid_dtd=True)
    except DefusedXmlException:
        raise CpufwError(
            f"{path}: it has a document type with entities or files to fetch, which no libvirt "
            "document needs; it is not read"
        ) from None
    except ParseError as error:
        line, column = error.position
        what = str(error).partition(":")[0]
        raise CpufwError(f"{path}:{line}:{column + 1}: XML syntax: {what}") from None


def _phys_bits(path: str, cpu: Any) -> int | None:
    for each in cpu.iter("maxphysaddr"):
        bits = each.get("bits") or each.get("limit")
        if bits:
            return _number(path, bits)
    return None


def _tsc(path: str, cpu: Any) -> Tsc:
    for each in cpu.iter("counter"):
        if each.get("name") == "tsc":
            scaling: Mapping[str | None, bool] = {"yes": True, "no": False}
            hertz = _number(path, each.get("frequency", "0"))
            return Tsc(hertz // 1000 or None, scaling.get(each.get("scaling")))
    return Tsc()


def _number(path: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise CpufwError(f"{path}: '{text}' is not a number") from None
