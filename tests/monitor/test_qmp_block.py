"""Disks over QMP: what there is, and what a guest did with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from guest_compiler import image_of
from qmp_direct import Direct
from qmp_guest import DEMO
from test_virtio_guest import CHECKS, SECTORS, write_image

from cpufw.framework import Framework

pytestmark = pytest.mark.kvm

SIZE = SECTORS * 512


def only(*checks: str) -> Path:
    """A guest that makes these checks: its arguments name those that it leaves out."""
    return image_of("virtio", " ".join(each for each in CHECKS if each not in checks))


@contextmanager
def guest(framework: Framework, *drives: str, kernel: Path = DEMO, **options: Any) -> Iterator[Any]:
    with framework.machine(
        "pc", cpu="Haswell,check=off", memory="32M", kernel=kernel, drives=drives, **options
    ) as machine:
        direct = Direct(machine)
        yield direct
        direct.monitor.close()


def test_disks_are_shown_as_qemu_shows_them(framework: Framework, tmp_path: Path) -> None:
    write_image(tmp_path / "a")
    (tmp_path / "b").touch()
    os.truncate(tmp_path / "b", 1 << 20)
    drives = (f"file={tmp_path}/a,id=root", f"file={tmp_path}/b,readonly=on")
    with guest(framework, *drives, serial=[], entry_mode="protected") as qmp:
        first, second = qmp.run("query-block")
        assert (first["device"], second["device"]) == ("root", "drive1")
        assert qmp.run("qom-get", path=first["qdev"], property="type") == "virtio-blk-device"
        assert first["qdev"] != second["qdev"]
        one, other = first["inserted"], second["inserted"]
        assert (one["ro"], other["ro"]) == (False, True)
        assert one["file"] == one["image"]["filename"] == str(tmp_path / "a")
        assert (one["drv"], one["image"]["format"]) == ("raw", "raw")
        assert (one["image"]["virtual-size"], other["image"]["virtual-size"]) == (SIZE, 1 << 20)
        assert one["image"]["actual-size"] >= SIZE
        assert other["image"]["actual-size"] == 0  # a hole
        nodes = qmp.run("query-named-block-nodes", flat=True)
        assert [each["drv"] for each in nodes] == ["raw", "file", "raw", "file"]
        assert len({each["node-name"] for each in nodes}) == 4
        assert nodes[0] == one
        stats = qmp.run("query-blockstats")
        assert [each["device"] for each in stats] == ["root", "drive1"]
        assert [each["parent"]["node-name"] for each in stats] == [
            nodes[1]["node-name"],
            nodes[3]["node-name"],
        ]
        by_node = qmp.run("query-blockstats", query_nodes=True)
        assert {each["node-name"] for each in by_node} == {each["node-name"] for each in nodes}
        assert not any("device" in each for each in by_node)


def test_what_the_guest_reads_and_writes_is_counted(framework: Framework, tmp_path: Path) -> None:
    """By the requests of disk_is_written and disk_has_an_end in facilities/virtio.c."""
    write_image(tmp_path / "disk")
    out = bytearray()
    image = only("disk_is_written", "disk_has_an_end")
    with guest(framework, f"file={tmp_path}/disk", kernel=image, serial=out.extend) as qmp:
        (stats,) = (each["stats"] for each in qmp.run("query-blockstats"))
        assert not any(value for name, value in stats.items() if not name.startswith("account"))
        qmp.monitor.machine.start()
        qmp.monitor.machine.wait(60)
        (told,) = qmp.run("query-blockstats")
    stats = told["stats"]
    assert b"not ok" not in out, out.decode()
    assert (stats["wr_operations"], stats["wr_bytes"]) == (1, 512)
    assert stats["flush_operations"] == 1
    assert (stats["rd_operations"], stats["rd_bytes"]) == (1, 1024)
    assert stats["wr_highest_offset"] == told["parent"]["stats"]["wr_highest_offset"] == 10 * 512
    assert stats["invalid_rd_operations"] == 1
    assert stats["failed_rd_operations"] == stats["failed_wr_operations"] == 0
    for name in ("rd", "wr", "flush"):
        assert 0 < stats[f"{name}_total_time_ns"] < 60e9


def test_what_the_host_refuses_is_counted_as_failed(framework: Framework, tmp_path: Path) -> None:
    write_image(tmp_path / "disk")
    image = only("disk_is_written")
    drive = f"file={tmp_path}/disk,readonly=on"
    with guest(framework, drive, kernel=image, serial=[]) as qmp:
        qmp.monitor.machine.start()
        qmp.monitor.machine.wait(60)
        (told,) = qmp.run("query-blockstats")
    assert told["stats"]["failed_wr_operations"] == 1
    assert told["stats"]["wr_operations"] == told["stats"]["wr_highest_offset"] == 0


def test_no_disks(framework: Framework) -> None:
    with guest(framework, serial=[], entry_mode="protected") as qmp:
        for name in ("query-block", "query-blockstats", "query-named-block-nodes"):
            assert qmp.run(name) == []
