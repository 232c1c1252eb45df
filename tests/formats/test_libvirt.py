"""libvirt's XML, held against libvirt's own CPU map and against what QEMU makes of it."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from cpus import (
    again,
    assert_golden,
    codec,
    cpu,
    cpu_text,
    cpu_texts,
    expansion,
    framework,
    lost_features,
    named,
    read,
    table,
    write,
)
from hypothesis import given, settings

from cpufw.core.features import FeatureSet
from cpufw.errors import FormatError, ModelError, NotFoundError

PROJECT = Path(__file__).parents[2]
MAP = PROJECT / "tests" / "data" / "libvirt" / "cpu-map.json.xz"


@cache
def libvirt() -> dict[str, Any]:
    """libvirt's own map of x86, not the file that cpufw reads."""
    whole: dict[str, Any] = json.loads(lzma.decompress(MAP.read_bytes()))["x86"]
    return whole


def place(register: list[Any]) -> str:
    """Where a CPUID bit of libvirt's map is, as cpufw spells it."""
    leaf, subleaf, name, mask = register
    function = int(leaf, 16)
    bit = int(mask, 16).bit_length() - 1
    indexed = f".{int(subleaf, 16)}" if subleaf is not None else ""
    return f"{function:X}{indexed}.{name.upper()}:{bit}"


@cache
def by_place() -> dict[str, str]:
    """cpufw's feature at each place, with and without a subleaf of zero."""
    found = {}
    for feature in table():
        for each in feature.places:
            found[each] = feature.name
            found[each.replace(".0.", ".", 1)] = feature.name
    return found


def feature_of(name: str) -> str | None:
    """cpufw's feature for the bit that libvirt gives `name`."""
    entry = libvirt()["features"][name]
    places = [place(each) for each in entry["cpuid"]]
    places += [f"MSR.{int(index, 16):X}:{mask.bit_length() - 1}" for index, mask in entry["msr"]]
    return next((by_place()[each] for each in places if each in by_place()), None)


def as_libvirt_reads(text: str) -> FeatureSet:
    """The features that a guest can use of what libvirt resolves the XML to."""
    root = fromstring(text)
    model = root.findtext("model")
    held = {"hypervisor"}  # libvirt's models leave out what every hypervisor sets
    if model:
        held |= set(libvirt()["models"][model]["resolved"])
    for each in root.findall("feature"):
        (held.add if each.get("policy") == "require" else held.discard)(each.get("name"))
    features: FeatureSet = table().set(filter(None, map(feature_of, held)))
    return features.without(table().set(features.unmet()))


def as_qemu_reads(text: str) -> FeatureSet:
    """The features of the `-cpu` that libvirt makes of the XML."""
    root = fromstring(text)
    signs = {"require": "+", "disable": "-"}
    parts = [
        f"{signs[each.get('policy') or '']}{feature_of(each.get('name') or '')}"
        for each in root.findall("feature")
    ]
    return expansion(",".join([root.findtext("model") or "", *parts])).features


def nameable() -> FeatureSet:
    found: FeatureSet = table().set(filter(None, map(feature_of, libvirt()["features"])))
    return found


def test_the_map_is_what_libvirts_own_gives() -> None:
    program = [sys.executable, str(PROJECT / "tools" / "libvirt_map.py"), "/dev/stdin"]
    done = subprocess.run(
        program, input=lzma.decompress(MAP.read_bytes()), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"")


def test_every_name_of_a_feature_is_that_of_its_bit() -> None:
    names = {name: feature_of(name) for name in libvirt()["features"]}
    known = {name: feature for name, feature in names.items() if feature is not None}
    assert len(known) > 350
    for name, feature in known.items():
        assert name in table()[feature].aliases.get("libvirt", (feature,)), name


@pytest.mark.parametrize("extra", ["", ",+vmx", ",-sse2"])
def test_every_model_means_the_same_to_libvirt_and_to_qemu(extra: str) -> None:
    for name in named():
        wanted = expansion(name + extra).features
        exported = write("libvirt", name + extra)
        lost = lost_features(exported)
        there = as_libvirt_reads(exported.text)
        assert not (there ^ wanted) - lost - (wanted - nameable()), name
        assert not (as_qemu_reads(exported.text) ^ wanted) - lost, name


@settings(max_examples=40)
@given(text=cpu_texts())
def test_what_is_written_and_read_is_the_same_cpu(text: str) -> None:
    exported, came = again("libvirt", text)
    wanted = expansion(text)
    assert not (came.features ^ wanted.features) - lost_features(exported)
    assert not (as_qemu_reads(exported.text) ^ wanted.features) - lost_features(exported)
    if came.model.name == wanted.model.name:
        assert came.identity == wanted.identity


def test_the_golden_cpus() -> None:
    assert_golden("Haswell.xml", write("libvirt", "Haswell,+vmx,-vmx-ept").text)
    assert_golden(
        "EPYC-Rome.xml",
        write("libvirt", "EPYC-Rome,vendor=HygonGenuine,phys-bits=43,l3-cache=off,enforce=on").text,
    )


def test_a_model_that_libvirt_lacks_becomes_the_nearest_and_says_so() -> None:
    exported = write("libvirt", "SierraForest-v2,+kvmclock")
    assert fromstring(exported.text).findtext("model") == "SierraForest-v1"
    assert exported.lost == ("stepping=3", "kvmclock=on")


def test_values_that_a_cpu_element_can_hold_come_back() -> None:
    for behaviour in ("enforce=on", "check=off"):
        text = f"Haswell-v1,vendor=AuthenticAMD,phys-bits=44,l3-cache=off,{behaviour}"
        exported = write("libvirt", text)
        assert exported.lost == ()
        assert cpu_text(read("libvirt", exported.text)) == text


def test_a_vendor_is_asked_of_the_host_only_where_libvirt_does() -> None:
    assert fromstring(write("libvirt", "Haswell").text).findtext("vendor") == "Intel"
    assert fromstring(write("libvirt", "qemu64").text).find("vendor") is None


@pytest.mark.parametrize(
    ("mode", "name"),
    [("host-passthrough", "host"), ("host-model", "host"), ("maximum", "max")],
)
def test_modes_of_the_host(mode: str, name: str) -> None:
    text = f"<cpu mode='{mode}'><feature policy='disable' name='ds_cpl'/></cpu>"
    assert cpu_text(read("libvirt", text)) == f"{name},-ds-cpl"


def test_host_is_passed_through() -> None:
    exported = write("libvirt", "host,-svm,+kvm-pv-ipi")
    root = fromstring(exported.text)
    assert (root.get("mode"), root.find("model")) == ("host-passthrough", None)
    assert [(each.get("policy"), each.get("name")) for each in root] == [("disable", "svm")]
    assert exported.lost == ("kvm-pv-ipi=on",)


@pytest.mark.parametrize(
    ("policy", "sign"),
    [("require", "+"), ("force", "+"), ("optional", "+"), ("disable", "-"), ("forbid", "-")],
)
def test_every_policy_is_taken_and_what_it_loses_is_said(policy: str, sign: str) -> None:
    feature = "invtsc" if sign == "+" else "avx2"
    xml = (
        f"<cpu><model>Skylake-Client-v4</model><feature policy='{policy}' name='{feature}'/></cpu>"
    )
    imported = read("libvirt", xml)
    assert cpu_text(imported) == f"Skylake-Client-v4,{sign}{feature}"
    assert any(policy in note for note in imported.notes) == (policy not in ("require", "disable"))


def test_libvirts_model_is_what_a_plain_name_means() -> None:
    imported = read("libvirt", "<cpu><model>Haswell</model></cpu>")
    held = table().set(filter(None, map(feature_of, libvirt()["models"]["Haswell"]["resolved"])))
    held = held.without(table().set(held.unmet())) | table().set(["hypervisor"])
    assert expansion(cpu_text(imported)).features == held
    assert any("is not QEMU's" in note for note in imported.notes)


@pytest.mark.parametrize(
    "document",
    [
        "<domain type='kvm'><name>x</name><cpu match='exact'>{}</cpu></domain>",
        "<capabilities><host><cpu><arch>x86_64</arch>{}</cpu></host></capabilities>",
        "<domainCapabilities><cpu><mode name='host-passthrough' supported='yes'/>"
        "<mode name='host-model' supported='yes'>{}</mode></cpu></domainCapabilities>",
    ],
)
def test_every_document_with_a_cpu_is_read(document: str) -> None:
    inner = (
        "<model fallback='forbid'>Skylake-Client-v4</model><vendor>Intel</vendor>"
        "<feature name='invtsc'/>"
    )
    assert cpu_text(read("libvirt", document.format(inner))) == "Skylake-Client-v4,+invtsc"


def test_a_feature_without_what_it_requires_is_left_out_and_said_to_be() -> None:
    xml = "<cpu><model>Conroe</model><feature policy='require' name='avx2'/></cpu>"
    imported = read("libvirt", xml)
    assert "avx2" not in expansion(cpu_text(imported)).features
    assert any(note.startswith("avx2 requires ") for note in imported.notes)


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("<cpu><model>Haswel</model></cpu>", "did you mean Haswell"),
        ("<cpu/>", "no model"),
        ("<cpu mode='host'/>", "mode 'host' is not known"),
        ("<cpu match='exakt'><model>Haswell</model></cpu>", "match 'exakt' is not known"),
        ("<network/>", "<network> is none of libvirt's documents"),
        ("<domain/>", "<domain> has no CPU"),
        ("<cpu><model>Haswell</model><feature/></cpu>", "has no name"),
        (
            "<cpu><model>Haswell</model><feature name='avx' policy='requir'/></cpu>",
            "policy 'requir' is not known; did you mean require?",
        ),
        (
            "<cpu><model>Haswell</model><feature name='avx'/>"
            "<feature name='avx' policy='disable'/></cpu>",
            "there twice",
        ),
        ("<cpu><arch>aarch64</arch><model>x</model></cpu>", "of aarch64, not of x86_64"),
        ("<cpu>\n <model>Haswell</modle></cpu>", "line 2, column 18"),
        ("<cpu><model>Haswell</model>", "line 1, column 28"),
    ],
)
def test_malformed_xml_is_one_sentence(xml: str, said: str) -> None:
    with pytest.raises((FormatError, NotFoundError)) as error:
        read("libvirt", xml)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_entities_are_refused_and_never_expanded() -> None:
    bomb = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol"}">' for n in range(10))
    outside = '<!ENTITY passwd SYSTEM "file:///etc/passwd">'
    for entities, used in ((bomb, "l9"), (outside, "passwd")):
        xml = f"<!DOCTYPE cpu [{entities}]><cpu><model>&{used};</model></cpu>"
        with pytest.raises(FormatError, match="document type declaration"):
            read("libvirt", xml)


def test_a_cpu_without_any_counterpart_is_refused() -> None:
    with pytest.raises(ModelError):
        codec("kubevirt").write(cpu("max"), framework())
