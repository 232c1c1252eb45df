"""Reading hosts: cpufw's own files, `cpuid -r`, virsh, Firecracker; and writing them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from captures import DUMPS, file

from cpufw.core.capture import HostCapture, Tsc
from cpufw.errors import CpufwError, ModelError
from cpufw.fleet.capture import capture_host, load_capture, write_capture
from cpufw.fleet.capture_file import dump
from cpufw.framework import Framework


def load(framework: Framework, name: str) -> HostCapture:
    return load_capture(DUMPS / name, framework)


# --- other programs' dumps ----------------------------------------------------------------


def test_cpuid_raw(framework: Framework) -> None:
    host = load(framework, "core-i7-4770.cpuid")
    table = framework.catalogue("x86_64").table
    assert (host.name, host.arch, host.source) == ("core-i7-4770", "x86_64", "cpuid -r")
    assert host.identity["model-id"] == "Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz"
    assert (host.identity["family"], host.identity["model"], host.phys_bits) == (6, 60, 39)
    features = host.supported_features(table)
    assert {"avx2", "fma", "vmx", "invtsc", "lm", "syscall"} <= set(features)
    assert {"rtm", "hle", "avx512f", "spec-ctrl"}.isdisjoint(features)


def test_a_dump_of_cpuid_leaves_msrs_and_kvms_own_features_unknown(framework: Framework) -> None:
    host = load(framework, "core-i7-4770.cpuid")
    table = framework.catalogue("x86_64").table
    unknown = host.unknown_features(table)
    assert {"rdctl-no", "vmx-ept", "kvmclock", "kvm-pv-eoi"} <= set(unknown)
    assert not unknown & host.supported_features(table)
    assert "avx512f" not in unknown
    # What may not be there is not asked for by default; KVM's local APIC is there on any host.
    on, off = host.default_features(table)
    assert "kvmclock" not in on
    assert "x2apic" in on
    assert "monitor" in off


def test_of_several_cpus_in_a_dump_the_first_counts(tmp_path: Path, framework: Framework) -> None:
    one = (DUMPS / "epyc-7742.cpuid").read_text()
    other = one.replace("CPU 0:", "CPU 1:").replace("ebx=0x219c91a9", "ebx=0x00000000")
    (tmp_path / "two.cpuid").write_text(one + other)
    both = load_capture(tmp_path / "two.cpuid", framework)
    assert both.features == load(framework, "epyc-7742.cpuid").features


def test_which_cpu_of_a_host_answered_makes_no_difference(
    tmp_path: Path, framework: Framework
) -> None:
    text = (DUMPS / "epyc-7742.cpuid").read_text()
    elsewhere = tmp_path / "epyc-7742.cpuid"
    elsewhere.write_text(
        text.replace("ebx=0x00800800", "ebx=0x07800800").replace(
            "ecx=0x00000100 edx=0x00000000", "ecx=0x00000100 edx=0x00000007"
        )
    )
    assert elsewhere.read_text() != text
    table = framework.catalogue("x86_64").table
    here, there = load(framework, "epyc-7742.cpuid"), load_capture(elsewhere, framework)
    assert dump(here, table) == dump(there, table)


def test_a_host_that_is_a_guest_itself_does_not_hand_on_its_own_hypervisors_features(
    tmp_path: Path, framework: Framework
) -> None:
    text = (DUMPS / "core-i7-4770.cpuid").read_text()
    kvm = (
        "   0x40000000 0x00: eax=0x40000001 ebx=0x4b4d564b ecx=0x564b4d56 edx=0x0000004d\n"
        "   0x40000001 0x00: eax=0x01007efb ebx=0x00000000 ecx=0x00000000 edx=0x00000000\n"
    )
    (tmp_path / "nested.cpuid").write_text(text + kvm)
    host = load_capture(tmp_path / "nested.cpuid", framework)
    assert host.features == load(framework, "core-i7-4770.cpuid").features
    assert "kvmclock" in host.unknown_features(framework.catalogue("x86_64").table)


def test_virsh_capabilities(framework: Framework) -> None:
    host = load(framework, "haswell-ep.capabilities.xml")
    table = framework.catalogue("x86_64").table
    assert (host.arch, host.source) == ("x86_64", "virsh capabilities")
    assert host.identity["vendor"] == "GenuineIntel"
    assert (host.identity["model"], host.identity["stepping"], host.phys_bits) == (63, 2, 46)
    assert host.tsc == Tsc(2294686, False)
    assert host.system == {"microcode": "73", "libvirt": "Haswell-noTSX-IBRS"}
    features = host.supported_features(table)
    # from libvirt's model, under libvirt's other names, and listed beside the model
    assert {"avx2", "lahf-lm", "pclmulqdq", "ds-cpl", "tsc-adjust", "md-clear"} <= set(features)
    assert "rtm" not in features
    assert "a-feature-of-the-future" in host.unrecognised_features(table)
    assert "kvmclock" in host.unknown_features(table)


def test_virsh_domcapabilities_tells_what_guests_can_have(framework: Framework) -> None:
    host = load(framework, "cascade-lake.domcapabilities.xml")
    table = framework.catalogue("x86_64").table
    features = host.supported_features(table)
    assert {"avx512vnni", "rdctl-no", "tsx-ctrl", "umip"} <= set(features)
    assert "pku" not in features  # libvirt's model has it, the host disables it
    assert "pku" not in host.unknown_features(table)
    assert host.phys_bits == 46


def test_a_model_that_libvirts_map_lacks_leaves_the_rest_unknown(
    tmp_path: Path, framework: Framework
) -> None:
    text = (DUMPS / "cascade-lake.domcapabilities.xml").read_text()
    path = tmp_path / "new.xml"
    path.write_text(text.replace("Cascadelake-Server-noTSX", "Lake-of-the-Future"))
    table = framework.catalogue("x86_64").table
    host = load_capture(path, framework)
    assert "umip" in host.supported_features(table)
    assert "avx512f" in host.unknown_features(table)


def test_firecracker_fingerprint_says_the_same_as_cpuid(framework: Framework) -> None:
    host = load(framework, "epyc-7742.fingerprint.json")
    plain = load(framework, "epyc-7742.cpuid")
    assert host.features == plain.features
    assert host.identity == plain.identity
    assert host.source == "Firecracker fingerprint"
    assert host.system == {
        "kernel": "6.1.90", "microcode": "0x830107c", "firecracker": "1.7.0"
    }  # fmt: skip
    table = framework.catalogue("x86_64").table
    assert "rdctl-no" in plain.unknown_features(table)
    assert "rdctl-no" not in host.unknown_features(table)  # the dump has that MSR


def test_a_dumped_firecracker_template_is_the_fingerprints_inside(
    tmp_path: Path, framework: Framework
) -> None:
    whole = json.loads((DUMPS / "epyc-7742.fingerprint.json").read_text())
    path = tmp_path / "template.json"
    path.write_text(json.dumps(whole["guest_cpu_config"]))
    host = load_capture(path, framework)
    assert host.features == load(framework, "epyc-7742.fingerprint.json").features
    assert host.source == "Firecracker CPU template"


@pytest.mark.parametrize(
    "name",
    [
        "core-i7-4770.cpuid",
        "haswell-ep.capabilities.xml",
        "cascade-lake.domcapabilities.xml",
        "epyc-7742.fingerprint.json",
    ],
)
def test_a_dump_written_as_a_capture_says_the_same(
    name: str, tmp_path: Path, framework: Framework
) -> None:
    table = framework.catalogue("x86_64").table
    host = load(framework, name)
    write_capture(tmp_path / "host.yaml", dump(host, table))
    again = load_capture(tmp_path / "host.yaml", framework)
    assert sorted(again.features) == sorted(host.features)
    assert again.unrecognised_features(table) == host.unrecognised_features(table)
    assert again.unknown_features(table) == host.unknown_features(table)
    assert (again.phys_bits, again.tsc, again.msrs) == (host.phys_bits, host.tsc, host.msrs)
    assert again.system == host.system


# --- a captured host as an accelerator ----------------------------------------------------


def test_names_that_only_a_newer_cpufw_knows_are_told_apart(
    tmp_path: Path, framework: Framework
) -> None:
    table = framework.catalogue("x86_64").table
    path = tmp_path / "newer.yaml"
    path.write_text(file("haswell-ep").read_text().replace("[fpu,", "[newest-thing, fpu,"))
    host = load_capture(path, framework)
    assert host.unrecognised_features(table) == ("newest-thing",)
    assert host.supported_features(table) == load_capture(
        file("haswell-ep"), framework
    ).supported_features(table)


def test_the_packages_own_framework_is_used_where_none_is_given() -> None:
    assert load_capture(str(file("haswell-ep"))).arch == "x86_64"


@pytest.mark.parametrize(
    "source",
    [file("haswell-ep"), DUMPS / "core-i7-4770.cpuid", DUMPS / "epyc-7742.fingerprint.json"],
)
def test_a_capture_may_come_through_a_pipe(
    source: Path, tmp_path: Path, framework: Framework
) -> None:
    pipe = tmp_path / source.name
    os.mkfifo(pipe)
    with subprocess.Popen(["cp", source, pipe]) as writer:
        host = load_capture(pipe, framework)
        assert writer.wait(10) == 0
    assert host.features == load_capture(source, framework).features


# --- writing ------------------------------------------------------------------------------


def test_a_new_capture_replaces_the_old_one_and_keeps_its_mode(tmp_path: Path) -> None:
    path, link = tmp_path / "host.yaml", tmp_path / "link.yaml"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    write_capture(link, "new\n")
    assert path.read_text() == "new\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["host.yaml", "link.yaml"]


def test_a_full_disk_leaves_the_old_capture_in_place(tmp_path: Path) -> None:
    path = tmp_path / "host.yaml"
    path.write_text("old\n")
    program = (
        "import sys, pathlib\n"
        "from cpufw.fleet.capture import write_capture\n"
        "write_capture(pathlib.Path(sys.argv[1]), 'x' * 100000)\n"
    )

    def small_files() -> None:  # a write beyond the limit fails as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        [sys.executable, "-B", "-c", program, str(path)],
        capture_output=True,
        text=True,
        preexec_fn=small_files,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert last.endswith(
        f"{path} cannot be written: File too large; the file that was there is unchanged"
    )
    assert path.read_text() == "old\n"
    assert [each.name for each in tmp_path.iterdir()] == ["host.yaml"]


@pytest.mark.parametrize("where", ["no/such/folder/host.yaml", "."])
def test_a_place_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path, where: str) -> None:
    with pytest.raises(CpufwError, match=r"cannot be written: there is no folder|is not a file"):
        write_capture(tmp_path / where, "text")
    assert not list(tmp_path.iterdir())


# --- this host ----------------------------------------------------------------------------


@pytest.mark.kvm
def test_this_host_is_what_its_accelerator_says(tmp_path: Path, framework: Framework) -> None:
    table = framework.catalogue("x86_64").table
    host = capture_host(framework, "x86_64")
    path = tmp_path / "here.yaml"
    write_capture(path, dump(host, table))
    read = load_capture(path, framework)
    accelerator = framework.accelerator_of("x86_64")
    try:
        assert read.supported_features(table) == accelerator.supported_features(table)
        assert read.default_features(table) == accelerator.default_features(table)
        told = accelerator.host_identity()
        assert dict(read.host_identity()) == {k: v for k, v in told.items() if v != ""}
        assert read.capabilities() == {k: v for k, v in accelerator.capabilities().items() if v}
        for model in ("qemu64", "Haswell-v4", "EPYC-Milan"):
            name = f"{model}-x86_64-cpu"
            assert framework.unavailable_features(name, read) == framework.unavailable_features(
                name, accelerator
            )
    finally:
        accelerator.close()
    assert read.tsc.scaling is not None


@pytest.mark.kvm
def test_the_same_host_gives_the_same_file(framework: Framework) -> None:
    table = framework.catalogue("x86_64").table
    first, second = (dump(capture_host(framework, "x86_64"), table) for _ in range(2))
    assert first == second


def test_a_capture_of_an_architecture_does_not_answer_for_another(framework: Framework) -> None:
    from cpufw.fleet.on_host import expand_on

    host = load_capture(file("haswell-ep"), framework)
    host.arch = "sparc64"
    with pytest.raises(ModelError, match=r"sparc64.*'Haswell' is of x86_64"):
        expand_on(framework.cpu("Haswell"), host)
