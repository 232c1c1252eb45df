"""QEMU's -cpu strings."""

from __future__ import annotations

from pathlib import Path

import pytest
from cpus import again, cpu_text, cpu_texts, expansion, named, read, write
from hypothesis import given, settings

from cpufw.errors import FormatError, ModelError, NotFoundError, PropertyError
from cpufw.formats.choice import Formats
from cpufw.framework import Framework


def test_every_model_goes_by_its_own_name() -> None:
    for name in named():
        assert write("qemu", name).text == f"{name}\n"


@settings(max_examples=40)
@given(text=cpu_texts())
def test_what_is_written_and_read_is_the_same_cpu(text: str) -> None:
    exported, came = again("qemu", text)
    wanted = expansion(text)
    assert exported.lost == ()
    assert (came.model.name, came.features) == (wanted.model.name, wanted.features)
    assert came.identity == wanted.identity


def test_only_what_differs_is_written() -> None:
    written = write(
        "qemu", "Haswell,+avx2,-hle,+vmx,+vmx-ept,stepping=4,model=61,enforce=on,check=off"
    )
    assert written.text == "Haswell,vmx=on,hle=off,model=61,check=off,enforce=on\n"
    assert written.lost == ()


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("Haswell,+invtsc,-avx2", "Haswell,+invtsc,-avx2"),
        ("Haswell,invtsc=on,avx2=off", "Haswell,+invtsc,-avx2"),
        ("Haswell,invtsc", "Haswell,+invtsc"),
        # + and - go before feature=on wherever they stand, - before +
        ("Haswell,-avx2,avx2=on", "Haswell,-avx2"),
        ("Haswell,avx2=off,+avx2", "Haswell,+avx2"),
        ("Haswell,-avx2,+avx2", "Haswell,-avx2"),
        ("Haswell,avx2=on,avx2=off", "Haswell,-avx2"),
        ("Haswell,sse4_1=off,-sse4-2", "Haswell,-sse4.2,-sse4.1"),
        ("Haswell,model_id=Mine,phys-bits=0x2a", "Haswell,model-id=Mine,phys-bits=0x2a"),
        ("host,-svm,l3-cache=off", "host,-svm,l3-cache=off"),
        ("qemu-system-x86_64 -m 1G -cpu 'Haswell,-avx2' -smp 2", "Haswell,-avx2"),
        ("-cpu Haswell,enforce", "Haswell,enforce=on"),
    ],
)
def test_every_way_to_say_it(text: str, means: str) -> None:
    imported = read("qemu", f"{text}\n")
    assert set(cpu_text(imported).split(",")) == set(means.split(","))
    assert imported.notes == ()


def test_what_cpufw_does_not_know_is_said() -> None:
    imported = read("qemu", "Haswell,+pcidd,no-such-thing=5,-avx2")
    assert cpu_text(imported) == "Haswell,-avx2"
    assert sorted(imported.notes) == [
        "no-such-thing=5 is not known here and left out",
        "pcidd=on is not known here and left out; did you mean pcid?",
    ]


def test_what_cpufw_refuses_is_left_out_and_said() -> None:
    imported = read("qemu", "Haswell,hv-relaxed=on,hv_syndbg,xen-vapic,-avx2")
    assert cpu_text(imported) == "Haswell,-avx2,hv-relaxed=on"
    assert [note.partition("=")[0] for note in imported.notes] == ["hv_syndbg", "xen-vapic"]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("Haswel,+avx2", NotFoundError, "did you mean Haswell"),
        ("Haswell,stepping=99", PropertyError, "out of range"),
        ("Haswell,avx2=maybe", PropertyError, "expected on or off"),
        ("Haswell,,+avx2", FormatError, "empty part"),
        (",+avx2", FormatError, "name is empty"),
        ("Haswell,+avx512f,-avx2", ModelError, "avx2"),
        ("qemu-system-x86_64 -m 1G -cpu ", FormatError, "no value after -cpu"),
        ("x" * 100_000, FormatError, "characters"),
    ],
)
def test_bad_strings(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        read("qemu", text)
    assert "\n" not in str(raised.value)


def test_a_users_own_model_becomes_the_nearest_of_qemus(tmp_path: Path) -> None:
    (tmp_path / "Mine.yaml").write_text(
        "kind: x86-model\nname: Mine\ndescription: a model of ours\nbase: Haswell-v4\n"
        "add: [ssbd]\nremove: [rdrand]\nstepping: 9\nmodel-id: One, two\n"
    )
    framework = Framework([str(tmp_path)])
    exported = Formats().codec("qemu", "x86_64").write(framework.cpu("Mine,-abm"), framework)
    assert exported.text == "Haswell-v4,ssbd=on,rdrand=off,abm=off,stepping=9\n"
    assert exported.lost == ("model-id=One, two",)  # QEMU has no way to write a comma
