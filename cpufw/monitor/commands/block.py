"""Commands about the guest's disks: raw images, which have two block nodes each, as in QEMU.

The node of the format is on top of that of the file.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from cpufw.core.disk import Disk
from cpufw.monitor.command import command
from cpufw.monitor.monitor import Monitor

BlockDeviceIoStatus = Literal["ok", "failed", "nospace"]
BlockdevDetectZeroesOptions = Literal["off", "on", "unmap"]
ImageInfo = TypedDict(
    "ImageInfo",
    {"filename": str, "format": str, "actual-size": NotRequired[int], "virtual-size": int},
)
BlockdevCacheInfo = TypedDict(
    "BlockdevCacheInfo", {"writeback": bool, "direct": bool, "no-flush": bool}
)
BlockDeviceInfo = TypedDict(
    "BlockDeviceInfo",
    {
        "file": str,
        "node-name": NotRequired[str],
        "ro": bool,
        "drv": str,
        "backing_file_depth": int,
        "active": bool,
        "encrypted": bool,
        "detect_zeroes": BlockdevDetectZeroesOptions,
        "bps": int,
        "bps_rd": int,
        "bps_wr": int,
        "iops": int,
        "iops_rd": int,
        "iops_wr": int,
        "image": ImageInfo,
        "cache": BlockdevCacheInfo,
        "write_threshold": int,
    },
)
BlockInfo = TypedDict(
    "BlockInfo",
    {
        "device": str,
        "qdev": NotRequired[str],
        "type": str,
        "removable": bool,
        "locked": bool,
        "inserted": NotRequired[BlockDeviceInfo],
        "io-status": NotRequired[BlockDeviceIoStatus],
    },
)


class BlockDeviceTimedStats(TypedDict):
    interval_length: int
    min_rd_latency_ns: int
    max_rd_latency_ns: int
    avg_rd_latency_ns: int
    min_wr_latency_ns: int
    max_wr_latency_ns: int
    avg_wr_latency_ns: int
    min_zone_append_latency_ns: int
    max_zone_append_latency_ns: int
    avg_zone_append_latency_ns: int
    min_flush_latency_ns: int
    max_flush_latency_ns: int
    avg_flush_latency_ns: int
    avg_rd_queue_depth: float
    avg_wr_queue_depth: float
    avg_zone_append_queue_depth: float


class BlockDeviceStats(TypedDict):
    rd_bytes: int
    wr_bytes: int
    zone_append_bytes: int
    unmap_bytes: int
    rd_operations: int
    wr_operations: int
    zone_append_operations: int
    flush_operations: int
    unmap_operations: int
    rd_total_time_ns: int
    wr_total_time_ns: int
    zone_append_total_time_ns: int
    flush_total_time_ns: int
    unmap_total_time_ns: int
    wr_highest_offset: int
    rd_merged: int
    wr_merged: int
    zone_append_merged: int
    unmap_merged: int
    failed_rd_operations: int
    failed_wr_operations: int
    failed_zone_append_operations: int
    failed_flush_operations: int
    failed_unmap_operations: int
    invalid_rd_operations: int
    invalid_wr_operations: int
    invalid_zone_append_operations: int
    invalid_flush_operations: int
    invalid_unmap_operations: int
    account_invalid: bool
    account_failed: bool
    timed_stats: list[BlockDeviceTimedStats]


BlockStats = TypedDict(
    "BlockStats",
    {
        "device": NotRequired[str],
        "qdev": NotRequired[str],
        "node-name": NotRequired[str],
        "stats": BlockDeviceStats,
        "parent": NotRequired["BlockStats"],
    },
)


@command("query-block")
def query_block(monitor: Monitor) -> list[BlockInfo]:
    """The guest's disks, in the order in which it finds them."""
    return [
        {
            "device": disk.name,
            "qdev": disk.path,
            "type": "unknown",
            "removable": False,
            "locked": False,
            "inserted": _node(disk, _format_node(number), "raw"),
            "io-status": "ok",  # the guest is told of errors, nothing stops for them
        }
        for number, disk in enumerate(monitor.machine.board.block_devices())
    ]


@command("query-named-block-nodes")
def query_named_block_nodes(monitor: Monitor, flat: bool | None = None) -> list[BlockDeviceInfo]:
    """The two nodes of each disk; `flat` changes nothing, as no image has another behind it."""
    nodes: list[BlockDeviceInfo] = []
    for number, disk in enumerate(monitor.machine.board.block_devices()):
        nodes.append(_node(disk, _format_node(number), "raw"))
        nodes.append(_node(disk, _file_node(number), "host_device" if disk.host_device else "file"))
    return nodes


@command("query-blockstats")
def query_blockstats(monitor: Monitor, query_nodes: bool | None = None) -> list[BlockStats]:
    """What each disk has done since it was made; with `query-nodes` what its nodes have."""
    found: list[BlockStats] = []
    for number, disk in enumerate(monitor.machine.board.block_devices()):
        end = disk.counts.highest_offset
        below: BlockStats = {"node-name": _file_node(number), "stats": _node_stats(end)}
        top: BlockStats = {"node-name": _format_node(number), "stats": _node_stats(end)}
        top["parent"] = below
        if query_nodes:
            found += [top, below]
        else:
            found.append({**top, "device": disk.name, "qdev": disk.path, "stats": _stats(disk)})
    return found


def _format_node(number: int) -> str:
    return f"#block{2 * number + 1:03}"


def _file_node(number: int) -> str:
    return f"#block{2 * number:03}"


def _node(disk: Disk, name: str, driver: str) -> BlockDeviceInfo:
    return {
        "file": disk.file,
        "node-name": name,
        "ro": disk.read_only,
        "drv": driver,
        "backing_file_depth": 0,
        "active": True,
        "encrypted": False,
        "detect_zeroes": "off",
        "bps": 0,
        "bps_rd": 0,
        "bps_wr": 0,
        "iops": 0,
        "iops_rd": 0,
        "iops_wr": 0,
        "image": {
            "filename": disk.file,
            "format": driver,
            "actual-size": disk.allocated,
            "virtual-size": disk.size,
        },
        "cache": {"writeback": True, "direct": False, "no-flush": False},
        "write_threshold": 0,
    }


def _node_stats(highest_offset: int) -> BlockDeviceStats:
    """Requests are counted at the device; a node knows how far it was written."""
    stats: dict[str, Any] = dict.fromkeys(BlockDeviceStats.__annotations__, 0)
    stats |= {"account_invalid": False, "account_failed": False, "timed_stats": []}
    return stats | {"wr_highest_offset": highest_offset}  # type: ignore[return-value]


def _stats(disk: Disk) -> BlockDeviceStats:
    counts = disk.counts
    stats: dict[str, Any] = dict(_node_stats(counts.highest_offset))
    for name, of in ("rd", counts.reads), ("wr", counts.writes), ("flush", counts.flushes):
        stats[f"{name}_operations"] = of.done
        stats[f"{name}_total_time_ns"] = of.nanoseconds
        stats[f"failed_{name}_operations"] = of.failed
        stats[f"invalid_{name}_operations"] = of.invalid
    stats |= {"rd_bytes": counts.reads.bytes, "wr_bytes": counts.writes.bytes}
    stats |= {"account_invalid": True, "account_failed": True}
    return stats  # type: ignore[return-value]
