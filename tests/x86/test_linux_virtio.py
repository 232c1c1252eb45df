"""Linux's own virtio drivers on the disks, the console and the random numbers of `pc`.

One guest serves all tests: without VMX and SVM a boot takes some fifteen seconds.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from linux_guest import PATIENCE, LinuxGuest

from cpufw.chardev import parse_chardev
from cpufw.errors import ImageError
from cpufw.framework import Framework

pytestmark = pytest.mark.kvm

# Small, and text: Linux shows it on the serial port. Lines of 64 characters.
SIZE = 16 << 9


@dataclass
class VirtioGuest:
    """The guest, its two images, and the host's end of its virtio console."""

    linux: LinuxGuest
    source: Path
    target: Path
    console: socket.socket

    def heard(self, count: int) -> bytes:
        """The next `count` bytes that the guest writes to its virtio console."""
        data = b""
        while len(data) < count:
            piece = self.console.recv(count - len(data))
            assert piece, data
            data += piece
        return data


def random_text(size: int) -> str:
    lines = (os.urandom(32).hex()[:-1] + "\n" for _ in range(size // 64))
    return "".join(lines)


@pytest.fixture(scope="module")
def guest(framework: Framework, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtioGuest]:
    folder = tmp_path_factory.mktemp("virtio")
    source, target = folder / "source.raw", folder / "target,raw"
    source.write_text(random_text(SIZE))
    target.write_text(random_text(SIZE))
    place = folder / "console"
    drives = [f"file={source},readonly=on,id=from-host", f"file={folder}/target,,raw"]
    with (
        parse_chardev(f"unix:{place},server=on,wait=off") as chardev,
        LinuxGuest(
            framework, "Haswell-v4", "2", drives=drives, virtio_console=chardev, rng=True
        ) as linux,
        socket.socket(socket.AF_UNIX) as console,
    ):
        linux.start()
        console.connect(str(place))
        console.settimeout(PATIENCE)
        yield VirtioGuest(linux, source, target, console)


def interrupts(guest: VirtioGuest, device: str) -> tuple[int, str]:
    """How many came from `device`, and through what."""
    table = guest.linux.read("/proc/interrupts")
    found = re.search(rf"^ *\d+: ([ \d]+?) +(\S+ +\S+) +{device}$", table, re.MULTILINE)
    assert found, table
    return sum(map(int, found[1].split())), found[2]


def test_disks_are_what_was_asked_for(guest: VirtioGuest) -> None:
    read = guest.linux.read
    assert read("/sys/block/vda/size") == str(SIZE // 512)
    assert (read("/sys/block/vda/ro"), read("/sys/block/vdb/ro")) == ("1", "0")
    for disk, name in (("vda", "from-host"), ("vdb", "drive1")):
        mark = len(guest.linux.text)
        guest.linux.send(f"cat /sys/block/{disk}/serial")
        guest.linux.expect(rf"^{name}ok$", mark)  # Linux ends it without a new line


def test_a_disk_is_read(guest: VirtioGuest) -> None:
    assert guest.linux.do("cat /dev/vda") + "\n" == guest.source.read_text()


def test_a_disk_is_written_where_it_was_meant(guest: VirtioGuest) -> None:
    before = guest.target.read_text()
    guest.linux.do("write /dev/vdb written-by-the-guest")
    expected = "written-by-the-guest" + before[20:]
    assert guest.target.read_text() == expected
    assert guest.linux.do("cat /dev/vdb") + "\n" == expected


def test_a_read_only_disk_cannot_be_written(guest: VirtioGuest) -> None:
    before = guest.source.read_bytes()
    mark = len(guest.linux.text)
    guest.linux.send("write /dev/vda no")
    guest.linux.expect(r"^error \d+$", mark)
    assert guest.source.read_bytes() == before


def test_the_console_in_both_directions(guest: VirtioGuest) -> None:
    guest.linux.do("write /dev/hvc0 hello")
    assert guest.heard(5) == b"hello"
    mark = len(guest.linux.text)
    guest.linux.send("cat /dev/hvc0")
    guest.linux.machine.wait(1)  # Linux drops what is typed before a program reads
    guest.console.sendall(b"typed on the host\n\x04")  # with the end of the file
    guest.linux.expect(r"^ok$", mark)
    assert "typed on the host" in guest.linux.text[mark:]


def test_random_numbers(guest: VirtioGuest) -> None:
    assert guest.linux.read("/sys/class/misc/hw_random/rng_current") == "virtio_rng.0"
    count, _ = interrupts(guest, "virtio3")
    assert count  # Linux stirs its own pool with them


def test_interrupts_are_levels_and_not_many(guest: VirtioGuest) -> None:
    before, through = interrupts(guest, "virtio1")
    assert through.split() == ["IO-APIC", "17-fasteoi"]
    guest.linux.do("write /dev/vdb a-few-bytes")
    after, _ = interrupts(guest, "virtio1")
    assert 1 <= after - before <= 10


def test_an_image_in_use_is_refused(guest: VirtioGuest, framework: Framework) -> None:
    text = str(guest.target).replace(",", ",,")
    with pytest.raises(ImageError, match="in use by another guest"):
        framework.machine("pc", cpu="qemu64", memory="16M", drives=[f"file={text}"])


def test_a_restart_finds_everything_again(guest: VirtioGuest) -> None:
    """The last: a reset leaves the devices as new."""
    mark = len(guest.linux.text)
    guest.linux.send("reboot")
    guest.linux.expect(r"^ready$", mark)
    assert guest.linux.do("cat /dev/vdb") + "\n" == guest.target.read_text()
    virtio = guest.linux.machine.board.chipset.virtio  # type: ignore[attr-defined]
    assert [transport.broken for transport in virtio.transports] == [""] * 4
