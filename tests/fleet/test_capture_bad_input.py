"""What is no captured host is refused quickly, in one sentence that says where and why."""

from __future__ import annotations

import re
import time
import tracemalloc
from pathlib import Path

import pytest
from captures import DUMPS, file

from cpufw.errors import CpufwError
from cpufw.fleet.capture import load_capture
from cpufw.framework import Framework

OWN = file("haswell-ep").read_text()
RAW = (DUMPS / "core-i7-4770.cpuid").read_text()
XML = (DUMPS / "haswell-ep.capabilities.xml").read_text()
JSON = (DUMPS / "epyc-7742.fingerprint.json").read_text()

ENTITY = """<?xml version="1.0"?>
<!DOCTYPE capabilities [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<capabilities><host><cpu><arch>x86_64</arch><model>&b;</model></cpu></host></capabilities>
"""
FETCH = """<!DOCTYPE capabilities SYSTEM "file:///etc/passwd">
<capabilities><host><cpu><arch>x86_64</arch></cpu></host></capabilities>
"""


def line_with(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def without(text: str, part: str, instead: str = "") -> str:
    assert part in text
    return text.replace(part, instead)


BAD: list[tuple[str, str | bytes, str]] = [
    ("empty", "", " is empty"),
    ("blank", " \n\n", " is empty"),
    ("binary", b"\x7fELF\x02\x01\x01\0\0\0", "it is a binary file; expected a file of"),
    ("prose", "Dear reader,\n", "nobody knows its format; expected a file of"),
    ("not UTF-8", b"kind: host-capture\nschema: 1\nsource: \xff\xfe\n", r":3: it is not UTF-8"),
    ("own, cut off in a list", OWN[:1200], r":\d+: it is cut off: the last line is not '\.\.\.'"),
    ("own, cut off between keys", OWN[: OWN.index("msrs:")], "it is cut off"),
    ("own, newer schema", without(OWN, "schema: 1", "schema: 2"),
     r":2:1: schema 2 is newer than 1, the newest that this cpufw reads"),
    ("own, newer and otherwise unlike ours",
     "kind: host-capture\nschema: 7\ncpufw: 9.9.0\nnew: {}\n...\n", r":2:1: .*cpufw 9\.9\.0 wrote"),
    ("own, another architecture", without(OWN, "arch: x86_64", "arch: sparc64"),
     "architecture 'sparc64' is not known"),
    ("own, a key twice", without(OWN, "schema: 1\n", "schema: 1\nschema: 1\n"),
     r":3:1: 'schema' is here twice, first on line 2"),
    ("own, a key that is none", without(OWN, "accelerator:", "acelerator:"),
     r":\d+:1: 'acelerator' is not a key here; did you mean accelerator\?"),
    ("own, a wrong type", without(OWN, "  phys-bits: 46", "  phys-bits: many"),
     r":\d+:3: .*phys-bits"),
    ("own, a malformed leaf", without(OWN, "   0x00000001 0x00: eax=", "   0x00000001 0x00: iax="),
     rf":{line_with(OWN, '0x00000001 0x00: eax=')}:\d+: '0x00000001 0x00: iax"),
    ("own, an alias", without(OWN, "identity:", "identity: &a\n  x: *a"), r":\d+:\d+: "),
    ("another kind", "kind: x86-model\nname: Haswell\n", "it is a 'x86-model'; expected"),
    ("cpuid, another line", without(RAW, "   0x00000002 0x00:", "   0x00000002"),
     rf":{line_with(RAW, '0x00000002')}: .* is not a line of `cpuid -r`"),
    ("cpuid, a leaf twice", RAW + RAW.splitlines()[4] + "\n", "is repeated"),
    ("cpuid, cut off", "\n".join(RAW.splitlines()[:9]), "leaf 0xd is missing, .* it is cut off"),
    ("cpuid, cut off in a line", RAW[:300], "is not a line of `cpuid -r`"),
    ("xml, cut off", XML[:400], r":\d+:\d+: XML syntax: "),
    ("xml, entities", ENTITY, "document type"),
    ("xml, a file to fetch", FETCH, "document type"),
    ("xml, another document", "<domain type='kvm'/>", "<domain> is no description of a host"),
    ("xml, no CPU", "<capabilities><host/></capabilities>", "<capabilities> has no host/cpu"),
    ("xml, another architecture", without(XML, ">x86_64<", ">sparc64<"),
     "architecture 'sparc64' is not known"),
    ("xml, no number", without(XML, "bits='46'", "bits='many'"), "'many' is not a number"),
    ("json, cut off", JSON[:500], r":\d+:\d+: JSON syntax: "),
    ("json, a key twice", without(JSON, '"bios_version"', '"kernel_version"'),
     "'kernel_version' is twice"),
    ("json, too deep", '{"a":' * 100_000, "too deep"),
    ("json, another object", '{"hello": 1}', "nobody knows its format"),
    ("json, a template that is no dump", without(JSON, '"0b00000000000000000000000000010000"',
     '"0bxxxxxxxxxxxxxxxxxxxxxxxxxxx10000"'), "leaves bits to the host"),
    ("json, no bitmap", without(JSON, '"0b00000000000000000000000000010000"', '"16"'),
     "'16' is not a bitmap"),
    ("json, no list", '{"cpuid_modifiers": 3}', "expected lists of objects"),
    ("json, no leaf", '{"cpuid_modifiers": [{"subleaf": "0x0"}]}', "a modifier has no 'leaf'"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "wanted"), [bad[1:] for bad in BAD], ids=[b[0] for b in BAD])
def test_bad_input_is_one_clear_sentence(
    content: str | bytes, wanted: str, tmp_path: Path, framework: Framework
) -> None:
    path = tmp_path / "host"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(CpufwError) as caught:
        load_capture(path, framework)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert "\n" not in sentence
    assert re.search(wanted, sentence), sentence


@pytest.mark.parametrize(
    "head",
    [b"", b"kind: host-capture\nschema: 1\n", b"<capabilities>", b'{"a": [', b"CPU 0:\n", b"\0"],
    ids=["nothing", "own", "xml", "json", "cpuid", "binary"],
)
def test_junk_of_100_mb_is_refused_at_once_and_in_little_memory(
    head: bytes, tmp_path: Path, framework: Framework
) -> None:
    path = tmp_path / "junk"
    with path.open("wb") as file:
        file.write(head)
        for _ in range(100):
            file.write(b"some junk that goes on and on...\n" * 31775)
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(CpufwError, match="is not a captured host: "):
            load_capture(path, framework)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 1
    assert peak < 4 << 20


@pytest.mark.parametrize(
    "content",
    [
        "kind: host-capture\n" + "- " * 100_000 + "\n...\n",
        "kind: host-capture\nfeatures: [" + "a," * 5_000 + "]\n...\n",
        "<capabilities>" + "<a>" * 100_000,
        "CPU 0:\n" + "   0x00000000 0x00: eax=junk\n" * 100_000,
    ],
    ids=["lists in lists", "a long list", "elements", "lines"],
)
def test_what_is_small_and_hostile_ends_soon_too(
    content: str, tmp_path: Path, framework: Framework
) -> None:
    path = tmp_path / "host"
    path.write_text(content)
    started = time.process_time()
    with pytest.raises(CpufwError) as caught:
        load_capture(path, framework)
    assert time.process_time() - started < 10
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path: Path, framework: Framework) -> None:
    for path, why in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(CpufwError, match=f"{re.escape(str(path))} cannot be read: {why}"):
            load_capture(path, framework)
