"""Guests of other shapes, and those that cannot be started."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from libvirt_host import DEMO_GUEST, LibvirtHost, counts, cpu_xml, domain_xml, eventually

pytestmark = [pytest.mark.kvm, pytest.mark.libvirt]

NAME = "other"


@contextmanager
def started(host: LibvirtHost, xml: str, folder: Path) -> Iterator[None]:
    """A domain that is there while the block lasts."""
    file = folder / "other.xml"
    file.write_text(xml, encoding="utf-8")
    host.ok("create", file)
    try:
        yield
    finally:
        host.virsh("destroy", NAME)


def refusal(host: LibvirtHost, xml: str, folder: Path) -> str:
    """What the user is told of a domain that does not start."""
    file = folder / "other.xml"
    file.write_text(xml, encoding="utf-8")
    answer = host.virsh("create", file)
    if answer.status == 0:
        host.virsh("destroy", NAME)
    assert answer.status == 1, "it was started"
    return answer.error


def test_a_serial_port_is_a_console(libvirt: LibvirtHost, tmp_path: Path) -> None:
    xml = domain_xml(libvirt, NAME, devices="<serial type='pty'/><console type='pty'/>")
    with started(libvirt, xml, tmp_path):
        assert libvirt.ok("ttyconsole", NAME).startswith("/dev/pts/")
        master, slave = pty.openpty()
        console = subprocess.Popen(
            libvirt.command("console", NAME), stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        try:
            heard = b""
            while b"Escape character" not in heard:
                heard += os.read(master, 4096)
            libvirt.ok("reset", NAME)
            while b"cpu 0: online" not in heard:
                heard += os.read(master, 4096)
        finally:
            console.kill()
            console.wait()
            os.close(master)


@pytest.mark.parametrize("machine", ["q35", "pc-q35-7.2", "pc"])
def test_machine_types(libvirt: LibvirtHost, tmp_path: Path, machine: str) -> None:
    with started(libvirt, domain_xml(libvirt, NAME, machine=machine), tmp_path):
        libvirt.ok("setvcpus", NAME, "2", "--live")
        assert counts(libvirt.ok("vcpucount", NAME))["current live"] == 2


def test_the_guest_has_the_cpu_of_the_definition(libvirt: LibvirtHost, tmp_path: Path) -> None:
    features = "<feature policy='disable' name='pse36'/><feature policy='require' name='x2apic'/>"
    serial = tmp_path / "serial"
    devices = f"<serial type='file'><source path='{serial}'/></serial>"
    xml = domain_xml(libvirt, NAME, cpu=cpu_xml(features=features), devices=devices)
    with started(libvirt, xml, tmp_path):
        eventually(lambda: "cpu 0: online" in serial.read_text("latin-1"), "the guest is up")
        assert "brand Intel Celeron_4x0 (Conroe" in serial.read_text("latin-1")
        assert not property_of_cpu_0(libvirt, "pse36")
        assert property_of_cpu_0(libvirt, "x2apic")
        assert property_of_cpu_0(libvirt, "pse")


def property_of_cpu_0(host: LibvirtHost, name: str) -> bool:
    """What QMP says of a feature, asked through libvirt."""
    place = {"path": "/machine/unattached/device[0]", "property": name}
    request = json.dumps({"execute": "qom-get", "arguments": place})
    found: bool = json.loads(host.ok("qemu-monitor-command", NAME, request))["return"]
    return found


def test_sockets_cores_and_threads(libvirt: LibvirtHost, tmp_path: Path) -> None:
    cpu = cpu_xml(topology="<topology sockets='2' cores='2' threads='2'/>")
    xml = domain_xml(libvirt, NAME, cpu=cpu, vcpus="<vcpu current='2'>8</vcpu>")
    with started(libvirt, xml, tmp_path):
        libvirt.ok("setvcpus", NAME, "8", "--live")
        assert counts(libvirt.ok("vcpucount", NAME))["current live"] == 8
        libvirt.ok("setvcpus", NAME, "2", "--live")
        assert counts(libvirt.ok("vcpucount", NAME))["current live"] == 2


@pytest.mark.parametrize("mode", ["host-passthrough", "host-model"])
def test_the_hosts_own_cpu(libvirt: LibvirtHost, tmp_path: Path, mode: str) -> None:
    cpu = f"<cpu mode='{mode}'/>"
    with started(libvirt, domain_xml(libvirt, NAME, cpu=cpu), tmp_path):
        libvirt.ok("setvcpus", NAME, "2", "--live")


def test_a_model_that_the_host_lacks_is_named(libvirt: LibvirtHost, tmp_path: Path) -> None:
    cpu = cpu_xml(features="<feature policy='require' name='xop'/>")
    cpu = cpu.replace("check='none'", "check='full'")
    error = refusal(libvirt, domain_xml(libvirt, NAME, cpu=cpu), tmp_path)
    assert "xop" in error


def test_a_kernel_that_is_none_is_refused_as_qemu_refuses(
    libvirt: LibvirtHost, tmp_path: Path
) -> None:
    empty = tmp_path / "kernel"
    empty.write_bytes(b"")
    error = refusal(libvirt, domain_xml(libvirt, NAME, kernel=empty), tmp_path)
    assert "cpufw-system-x86_64: " in error
    assert str(empty) in error


def test_a_device_that_cpufw_has_not_is_named(libvirt: LibvirtHost, tmp_path: Path) -> None:
    devices = "<watchdog model='ib700' action='reset'/>"
    error = refusal(libvirt, domain_xml(libvirt, NAME, devices=devices), tmp_path)
    assert "ib700" in error


def test_an_option_that_cpufw_has_not_is_shown_to_the_user(
    libvirt: LibvirtHost, tmp_path: Path
) -> None:
    xml = domain_xml(libvirt, NAME).replace(
        "<domain type='kvm'>",
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
        "<qemu:commandline><qemu:arg value='-gdb'/><qemu:arg value='tcp::1'/></qemu:commandline>",
    )
    error = refusal(libvirt, xml, tmp_path)
    assert "-gdb tcp::1: not supported: cpufw has no gdb stub" in error


def test_the_documented_domain_starts(libvirt: LibvirtHost, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "libvirt.md").read_text(encoding="utf-8")
    xml = page.partition("```xml\n")[2].partition("```")[0]
    for shown, real in (
        ("/srv/guests/demo.bin", DEMO_GUEST),
        ("/usr/local/bin/cpufw-system-x86_64", libvirt.emulator),
        ("<name>demo<", f"<name>{NAME}<"),
    ):
        assert shown in xml
        xml = xml.replace(shown, str(real))
    with started(libvirt, xml, tmp_path):
        libvirt.ok("setvcpus", NAME, "3", "--live")
        assert counts(libvirt.ok("vcpucount", NAME))["current live"] == 3


def test_linux_brings_cpus_online_and_lets_them_go(libvirt: LibvirtHost, tmp_path: Path) -> None:
    guests = os.environ.get("CPUFW_GUESTS", "")
    if not guests:
        pytest.skip("CPUFW_GUESTS is not set: make guests builds Linux")
    serial = tmp_path / "serial"
    boot = f"<initrd>{guests}/init.cpio</initrd><cmdline>console=ttyS0</cmdline>"
    xml = domain_xml(
        libvirt, NAME, kernel=Path(guests, "bzImage"), boot=boot, memory=256,
        devices=f"<serial type='file'><source path='{serial}'/></serial>",
    )  # fmt: skip

    def says(text: str) -> None:
        eventually(lambda: text in serial.read_text("latin-1"), f"Linux says '{text}'", 200)

    with started(libvirt, xml, tmp_path):
        says("\nready")
        libvirt.ok("setvcpus", NAME, "2", "--live")
        says("onlined cpu 1")
        libvirt.virsh("setvcpus", NAME, "1", "--live")  # libvirt waits 5 s, a busy host takes more
        eventually(
            lambda: counts(libvirt.ok("vcpucount", NAME))["current live"] == 1, "CPU 1 is gone"
        )
