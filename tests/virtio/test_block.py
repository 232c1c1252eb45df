"""The disk: what the driver asks of it, and what becomes of the image."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from guest_driver import (
    BASE,
    F_VERSION_1,
    NEEDS_RESET,
    RAM_SIZE,
    RAM_START,
    Driver,
    Line,
    Ram,
)

from cpufw.errors import ImageError, StateError
from cpufw.virtio import BlockDevice, RawImage, VirtioMmio

IN, OUT, FLUSH, GET_ID = 0, 1, 4, 8
OK, IOERR, UNSUPP = 0, 1, 2
F_RO, F_FLUSH = 1 << 5, 1 << 9
SECTORS = 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(SECTORS * 512))
    return path


class Disk:
    """A disk without a thread, and a driver for it."""

    def __init__(
        self, path: Path, *, read_only: bool = False, features: int | None = None, id: str = ""
    ) -> None:
        self.ram, self.line = Ram(), Line()
        self.block = BlockDevice(RawImage(str(path), read_only=read_only), id)
        self.device = VirtioMmio(self.block, BASE, self.ram, self.line)
        self.driver = Driver(self.device, self.ram).start(features, size=64)
        self.status = self.driver.allocate(1)

    def request(
        self, kind: int, sector: int = 0, *parts: tuple[int, int, bool], indirect: bool = True
    ) -> tuple[int, int]:
        """The status of a request, and how many bytes the device says that it wrote."""
        header = self.driver.allocate(16)
        self.ram.put(header, struct.pack("<IIQ", kind, 0, sector))
        self.ram.put(self.status, b"\xff")
        chain = [(header, 16, False), *parts, (self.status, 1, True)]
        head = self.driver.offer(chain, indirect=indirect)
        self.driver.run()
        assert self.device.broken == ""
        ((used, written),) = self.driver.used()
        assert used == head
        return self.ram.get(self.status, 1)[0], written

    def read(self, sector: int, size: int) -> bytes:
        buffer = self.driver.allocate(size)
        assert self.request(IN, sector, (buffer, size, True)) == (OK, size + 1)
        return self.ram.get(buffer, size)

    def write(self, sector: int, data: bytes) -> int:
        buffer = self.driver.allocate(len(data))
        self.ram.put(buffer, data)
        return self.request(OUT, sector, (buffer, len(data), False))[0]


def test_the_whole_disk_is_read(path: Path) -> None:
    disk = Disk(path)
    assert disk.read(0, SECTORS * 512) == path.read_bytes()
    assert disk.device.problem() == ""


def test_what_is_written_is_in_the_image_and_nothing_else_changes(path: Path) -> None:
    before = bytearray(path.read_bytes())
    data = os.urandom(1024)
    disk = Disk(path)
    assert disk.write(7, data) == OK
    assert disk.request(FLUSH)[0] == OK
    before[7 * 512 : 7 * 512 + 1024] = data
    assert path.read_bytes() == before
    assert disk.read(7, 1024) == data


@pytest.mark.parametrize("indirect", [False, True])
def test_requests_may_be_cut_anywhere(path: Path, indirect: bool) -> None:
    """2.7.4.1: the device must not assume how a buffer is cut into descriptors."""
    disk = Disk(path)
    header = disk.driver.allocate(16)
    data = disk.driver.allocate(1024 + 1)  # the status right behind the data
    disk.ram.put(header, struct.pack("<IIQ", IN, 0, 3))
    parts = [(header + i, 4, False) for i in range(0, 16, 4)]
    parts += [(data + start, size, True) for start, size in ((0, 1), (1, 510), (511, 514))]
    head = disk.driver.offer(parts, indirect=indirect)
    disk.driver.run()
    assert disk.driver.used() == [(head, 1025)]
    assert disk.ram.get(data, 1025) == path.read_bytes()[3 * 512 : 5 * 512] + bytes([OK])


def test_the_configuration(path: Path) -> None:
    disk = Disk(path)
    assert disk.device.read(0x100, 4) == SECTORS
    assert disk.device.read(0x104, 4) == 0
    assert disk.device.read(0x100, 8) == SECTORS
    assert disk.device.read(0x10C, 4) <= disk.driver.reg(0x034) - 2  # seg_max fits a queue
    assert disk.device.read(0x114, 4) == 512  # blk_size
    assert disk.device.read(0x1FF, 1) == 0


def test_the_id_is_20_bytes_without_an_end_if_it_fills_them(path: Path) -> None:
    for name in ("root", "a-name-of-just-20-ch", "a-name-of-more-than-20-characters", "größe"):
        disk = Disk(path, id=name)
        buffer = disk.driver.allocate(20)
        assert disk.request(GET_ID, 0, (buffer, 20, True)) == (OK, 21)
        expected = name.encode("ascii", "replace").ljust(20, b"\0")[:20]
        assert disk.ram.get(buffer, 20) == expected
        disk.device.close()


def test_a_read_only_disk_says_so_and_keeps_its_contents(path: Path) -> None:
    before = path.read_bytes()
    path.chmod(0o444)
    disk = Disk(path, read_only=True)
    assert disk.driver.features & F_RO
    assert disk.write(0, bytes(512)) == IOERR
    assert disk.request(FLUSH)[0] == OK
    assert disk.read(1, 512) == before[512:1024]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("sector", "size"),
    [(SECTORS, 512), (SECTORS - 1, 1024), (1 << 63, 512), ((1 << 64) - 1, 512), (0, 511)],
)
@pytest.mark.parametrize("kind", [IN, OUT])
def test_a_place_that_is_not_on_the_disk(path: Path, kind: int, sector: int, size: int) -> None:
    disk = Disk(path)
    before = path.read_bytes()
    buffer = disk.driver.allocate(size)
    assert disk.request(kind, sector, (buffer, size, kind == IN))[0] == IOERR
    assert path.read_bytes() == before
    assert "an I/O error" in disk.device.problem()


def test_a_request_the_device_does_not_know(path: Path) -> None:
    assert Disk(path).request(0x7777)[0] == UNSUPP


def test_the_same_memory_named_many_times(path: Path) -> None:
    """As much as a request can name: served without a copy, and refused by its size."""
    disk = Disk(path)
    parts = [(RAM_START, RAM_SIZE, True)] * 60
    assert disk.request(IN, 0, *parts)[0] == IOERR


@pytest.mark.parametrize("parts", [[], [(16, False)], [(15, False), (1, True)], [(1, True)]])
def test_a_request_without_header_or_status(path: Path, parts: list[tuple[int, bool]]) -> None:
    disk = Disk(path)
    chain = [(disk.driver.allocate(size), size, write) for size, write in parts]
    disk.driver.offer(chain or [(disk.driver.allocate(16), 0, False)])
    disk.driver.run()
    assert disk.driver.status & NEEDS_RESET
    assert "header" in disk.device.broken


def test_an_image_cut_short_meanwhile_is_an_io_error(path: Path) -> None:
    disk = Disk(path)
    os.truncate(path, 512)
    buffer = disk.driver.allocate(1024)
    assert disk.request(IN, 0, (buffer, 1024, True))[0] == IOERR
    assert f"an I/O error: {path}" in disk.device.problem()


def test_a_full_disk_of_the_host_is_an_io_error(path: Path) -> None:
    """The host refuses to let files grow beyond 1 MiB; the image has holes above that."""
    code = """
import resource, signal, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from test_block import Disk, IOERR, OK
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
disk = Disk(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
assert disk.write(4096, bytes(512)) == IOERR
assert "File too large" in disk.device.problem(), disk.device.problem()
assert disk.write(0, bytes(512)) == OK
"""
    os.truncate(path, 4 << 20)
    result = subprocess.run(
        [sys.executable, "-c", code, str(path), *sys.path], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("accepted", "syncs"), [(F_VERSION_1, 2), (F_VERSION_1 | F_FLUSH, 0)])
def test_writes_are_stable_at_once_for_a_driver_that_cannot_flush(
    path: Path, monkeypatch: pytest.MonkeyPatch, accepted: int, syncs: int
) -> None:
    disk = Disk(path, features=accepted)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    parts = (disk.driver.allocate(512), 512, False)
    for sector in range(2):
        assert disk.request(OUT, sector, parts, indirect=False)[0] == OK
    assert len(synced) == syncs


def test_a_state_of_a_disk_of_another_size(path: Path, tmp_path: Path) -> None:
    disk = Disk(path)
    state = disk.device.vmstate.save(disk.device)
    larger = tmp_path / "larger.raw"
    larger.write_bytes(bytes(1 << 20))
    other = Disk(larger)
    with pytest.raises(StateError, match="another configuration"):
        other.device.vmstate.load(other.device, state)


class TestImage:
    def test_it_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"disk.raw cannot be opened: No such file"):
            RawImage(str(tmp_path / "disk.raw"))

    def test_it_is_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="neither a file nor a block device"):
            RawImage(str(tmp_path), read_only=True)

    def test_it_is_a_fifo_that_nobody_writes(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(ImageError, match="neither a file nor a block device"):
            RawImage(str(tmp_path / "fifo"), read_only=True)

    @pytest.mark.parametrize("size", [0, 1, 513])
    def test_its_size_is_not_of_whole_sectors(self, tmp_path: Path, size: int) -> None:
        (tmp_path / "odd").write_bytes(bytes(size))
        with pytest.raises(ImageError, match=f"has {size} bytes, expected a multiple of 512"):
            RawImage(str(tmp_path / "odd"))

    def test_it_cannot_be_written(self, path: Path) -> None:
        path = Path(sys.executable).resolve()  # a program that runs, not even root writes
        with pytest.raises(ImageError, match=r"cannot be opened: (Text file busy|Permission)"):
            RawImage(str(path))

    def test_it_has_no_size(self) -> None:
        with pytest.raises(ImageError, match="/proc/version has"):
            RawImage("/proc/version", read_only=True)

    def test_two_guests_cannot_write_one_image(self, path: Path) -> None:
        first = RawImage(str(path))
        for read_only in (False, True):
            with pytest.raises(ImageError, match="in use by another guest"):
                RawImage(str(path), read_only=read_only)
        first.close()
        RawImage(str(path)).close()

    def test_many_guests_can_read_one_image(self, path: Path) -> None:
        first, second = (RawImage(str(path), read_only=True) for _ in range(2))
        with pytest.raises(ImageError, match="in use by another guest"):
            RawImage(str(path))
        first.close()
        second.close()

    def test_a_refused_image_leaves_no_file_open(self, path: Path) -> None:
        before = len(list(Path("/proc/self/fd").iterdir()))
        held = RawImage(str(path))
        for _ in range(3):
            with pytest.raises(ImageError):
                RawImage(str(path))
        held.close()
        # Files of other tests may be closed meanwhile.
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
