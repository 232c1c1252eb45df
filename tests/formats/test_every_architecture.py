"""The formats that need to know nothing of an architecture, on all that there are."""

from __future__ import annotations

from functools import cache

import pytest
from cpus import formats, framework, lost_names
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cpufw.errors import ModelError, PropertyError
from cpufw.formats.requests import request_text

ARCHITECTURES = [arch for arch in framework().architectures if arch != "x86_64"]


@cache
def choices(arch: str) -> tuple[list[str], list[str]]:
    models = [each.name for each in framework().catalogue(arch) if not each.dynamic]
    return models, [each.name for each in framework().catalogue(arch).table]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@settings(max_examples=15)
@given(data=st.data())
def test_what_is_written_and_read_is_the_same_cpu(arch: str, data: st.DataObject) -> None:
    models, features = choices(arch)
    switched = data.draw(st.dictionaries(st.sampled_from(features), st.booleans(), max_size=2))
    text = data.draw(st.sampled_from(models))
    text += "".join(f",{'+' if on else '-'}{name}" for name, on in switched.items())
    try:
        wanted = framework().cpu(text, arch).expand().features
    except (ModelError, PropertyError):
        assume(False)
    for name in ("libvirt", "qemu", "kubevirt", "kubevirt-node"):
        codec = formats().codec(name, arch)
        exported = codec.write(framework().cpu(text, arch), framework())
        request = codec.read(exported.text, framework()).request
        came = framework().cpu(request_text(request), arch).expand().features
        lost = wanted.table.set(each for each in lost_names(exported) if each in wanted.table)
        assert not (came ^ wanted) - lost, name


def test_an_architecture_is_found_by_its_model() -> None:
    for text, arch in (("cortex-a57,pmu=off", "aarch64"), ("z14", "s390x"), ("Haswell", "x86_64")):
        reading = formats().read(text, framework(), list(framework().architectures))
        assert (reading.arch, reading.format) == (arch, "qemu")
