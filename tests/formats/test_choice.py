"""Which format a text is in, and for which architecture."""

from __future__ import annotations

import pytest
from cpus import ARCH, cpu_text, formats, framework, write

from cpufw.core.cpu import CPUState
from cpufw.core.model import CPURequest
from cpufw.errors import FormatError, NotFoundError
from cpufw.formats.choice import Formats
from cpufw.formats.format import Exported, Format, Imported, Models
from cpufw.formats.text import MAX_CHARACTERS


def read(text: str, name: str | None = None, known: Formats | None = None) -> tuple[str, str]:
    reading = (known or formats()).read(text, framework(), [ARCH], name)
    return reading.format, cpu_text(reading.imported)


@pytest.mark.parametrize("name", list(formats().of(ARCH)))
@pytest.mark.parametrize("model", ["Penryn", "EPYC-Milan-v2"])
def test_what_a_format_writes_is_known_as_it(name: str, model: str) -> None:
    exported = write(name, model)
    found, cpu = read(exported.text)
    assert found == name
    assert cpu == read(exported.text, name)[1]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("\n  <cpu mode='host-passthrough'/>", "libvirt"),
        ("Haswell,model-id=what cpu: none", "qemu"),
        ("qemu-system-x86_64 -cpu Haswell", "qemu"),
        ("boot=1,max=4", "cloud-hypervisor"),
        ('{"cpu": {"model": "Haswell"}}', "kubevirt"),
        ("spec:\n  domain:\n    cpu:\n      model: Haswell\n", "kubevirt"),
    ],
)
def test_what_others_write_is_known(text: str, name: str) -> None:
    assert read(text)[0] == name


def test_what_nothing_looks_like_names_the_formats() -> None:
    with pytest.raises(FormatError, match=r"none of the formats libvirt, .*say which with --from"):
        read("one\ntwo\n")
    with pytest.raises(FormatError):
        read("")


def test_an_unknown_format_offers_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="did you mean libvirt"):
        read("<cpu/>", "libvrt")
    with pytest.raises(NotFoundError, match="did you mean firecracker"):
        formats().codec("firecraker", ARCH)


def test_a_hundred_megabytes_of_junk_are_not_looked_at() -> None:
    for name in (None, *formats().of(ARCH)):
        with pytest.raises(FormatError, match="characters"):
            read("x" * (MAX_CHARACTERS + 1), name)


class Shouting:
    """QEMU's string in capitals, for a test of what a plugin may do."""

    def __init__(self, arch: str) -> None:
        self.arch = arch

    def recognises(self, text: str) -> bool:
        return text.isupper()

    def write(self, cpu: CPUState, models: Models) -> Exported:
        del models
        return Exported(cpu.model.name.upper())

    def read(self, text: str, models: Models) -> Imported:
        del models
        return Imported(CPURequest(text.strip().capitalize()))


def test_a_plugins_format_goes_before_one_for_every_architecture() -> None:
    loud = Format("qemu", "loud", Shouting, ARCH)
    elsewhere = Format("shout", "loud, for another architecture", Shouting, "toy")
    known = Formats([loud, elsewhere])
    assert read("HASWELL", "qemu", known) == ("qemu", "Haswell")
    assert "shout" not in known.of(ARCH)
    assert known.of("toy")["qemu"].description != "loud"


def test_what_a_plugin_brings_is_asked_before_what_looks_like_anything() -> None:
    known = Formats([Format("shout", "loud", Shouting, ARCH)])
    assert read("HASWELL", None, known) == ("shout", "Haswell")
