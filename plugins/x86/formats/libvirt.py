"""libvirt's words for x86: its features and its models, which are not QEMU's."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files

from cpufw.core.features import FeatureTable
from cpufw.formats.libvirt_names import LibvirtMap, LibvirtNames


@lru_cache(maxsize=1)
def libvirt_map() -> LibvirtMap:
    """The CPU map that libvirt has of x86."""
    text = (files("cpufw_cpudefs") / "x86" / "libvirt.json").read_text(encoding="utf-8")
    return LibvirtMap.from_record(json.loads(text))


@lru_cache(maxsize=8)
def libvirt_names(table: FeatureTable) -> LibvirtNames:
    """The names that libvirt has for the features of `table`."""
    return LibvirtNames(table, libvirt_map())
