"""virtio on `pc`, as the driver in facilities/virtio.c finds it, and what is in the image then."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from facility_guests import Report, run_guest
from guest_compiler import checks_of, image_of
from guest_programs import cpufw

from cpufw.core.machine import Machine
from cpufw.errors import ImageError, UsageError
from cpufw.framework import Framework

pytestmark = pytest.mark.kvm

ENDLESS = "requests_without_end"

SECTORS = 64
CHECKS = [check for check in checks_of("virtio") if check != ENDLESS]


@dataclass
class Run:
    report: Report
    before: bytes
    after: bytes


def write_image(path: Path) -> bytes:
    """Sectors that are full of their number, as the guest expects them."""
    content = b"".join(bytes([number]) * 512 for number in range(SECTORS))
    path.write_bytes(content)
    return content


@pytest.fixture(scope="module", params=["on", "split"])
def run(
    request: pytest.FixtureRequest, framework: Framework, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    path = tmp_path_factory.mktemp("virtio") / "disk.raw"
    before = write_image(path)
    report = run_guest(
        framework,
        image_of("virtio"),
        kernel_irqchip=request.param,
        drives=[f"file={path}"],
        rng=True,
    )
    return Run(report, before, path.read_bytes())


@pytest.mark.parametrize("check", CHECKS)
def test_virtio(run: Run, check: str) -> None:
    run.report.require(check)


def test_the_image_has_what_was_written_and_nothing_else(run: Run) -> None:
    assert run.after == run.before[: 9 * 512] + b"\xa5" * 512 + run.before[10 * 512 :]


def wait_for_requests(machine: Machine, out: bytearray, count: int) -> int:
    """Wait for so many more; how many there were then."""
    begin = requests(out)
    deadline = monotonic() + 60
    while requests(out) < begin + count:
        assert monotonic() < deadline, out.decode()
        assert b"not ok" not in out, out.decode()
        machine.wait(0.02)
    return requests(out)


def requests(out: bytearray) -> int:
    return int((re.findall(rb"^(\d+) requests$", out, re.MULTILINE) or [b"0"])[-1])


def test_a_guest_is_saved_and_moved_in_the_midst_of_requests(
    framework: Framework, tmp_path: Path
) -> None:
    """Three times, so that some of them are under way."""
    write_image(tmp_path / "disk.raw")
    image = image_of("virtio", "forever " + " ".join(CHECKS))
    snapshot = tmp_path / "guest.snap"
    out = bytearray()
    options: dict[str, Any] = {"serial": out.extend}
    begin = partial(
        framework.machine,
        "pc",
        cpu="Haswell,check=off",
        memory="32M",
        kernel=image,
        drives=[f"file={tmp_path}/disk.raw"],
        rng=True,
    )
    counted = 0
    for _ in range(3):
        with begin(**options) as machine:
            machine.start()
            wait_for_requests(machine, out, 64)
            machine.pause()
            counted = requests(out)
            machine.save(snapshot)
        begin = partial(framework.load_machine, snapshot)
        out.clear()
    with begin(**options) as machine:
        machine.start()
        assert wait_for_requests(machine, out, 64) > counted
        with pytest.raises(ImageError, match="in use by another guest"):
            framework.load_machine(snapshot)


def test_on_the_command_line(tmp_path: Path) -> None:
    write_image(tmp_path / "disk.raw")
    disk_only = image_of("virtio", " ".join(each for each in CHECKS if "disk" not in each))
    done = cpufw(
        *("run", "--cpu", "qemu64", "--virtio-console", f"file:{tmp_path}/console", "--rng"),
        *("--drive", f"file={tmp_path}/disk.raw,readonly=on,id=root", disk_only),
    )
    assert "ok disk_is_read" in done.stdout
    assert "not ok disk_is_written write: status 1" in done.stdout  # it is read-only
    assert (tmp_path / "console").read_bytes() == b""


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--drive", "disk.raw"], "expected file=PATH[,readonly=on|off][,id=NAME]"),
        (["--drive", "file=/absent.raw"], "disk image /absent.raw cannot be opened: No such file"),
        (["--virtio-console", "stdio"], "COM1 leads to stdio; give --serial none"),
        (["--virtio-console", "nowhere"], "--virtio-console: 'nowhere' is not stdio"),
    ],
)
def test_what_the_command_line_gets_wrong(options: list[str], problem: str) -> None:
    done = cpufw("run", *options, image_of("virtio"))
    assert done.returncode in (1, 2)
    assert problem in done.stderr


@pytest.fixture
def disks(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"disk{number}" for number in range(9)]
    for path in paths:
        path.write_bytes(bytes(512))
    return [f"file={path}" for path in paths]


def test_there_is_room_for_eight(framework: Framework, disks: list[str]) -> None:
    framework.machine("pc", cpu="qemu64", memory="16M", drives=disks[:8]).close()
    with pytest.raises(UsageError, match="9 virtio devices, this machine has room for 8"):
        framework.machine("pc", cpu="qemu64", memory="16M", drives=disks)


def test_two_drives_cannot_have_one_id(framework: Framework, disks: list[str]) -> None:
    with pytest.raises(UsageError, match="two drives are called drive1"):
        framework.machine("pc", cpu="qemu64", drives=[f"{disks[0]},id=drive1", disks[1]])


def test_a_machine_that_cannot_be_made_lets_go_of_its_images(
    framework: Framework, disks: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match="absent cannot be opened"):
        framework.machine("pc", cpu="qemu64", drives=[disks[0], f"file={tmp_path}/absent"])
    with pytest.raises(UsageError):
        framework.machine("pc", cpu="qemu64", drives=disks[:1], serial=[None] * 5)
    framework.machine("pc", cpu="qemu64", memory="16M", drives=disks[:1]).close()
