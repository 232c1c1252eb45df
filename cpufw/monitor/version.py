"""What a client is told it talks to."""

from __future__ import annotations

from cpufw.version import __version__

# Clients decide by these numbers what they may use; cpufw speaks as QEMU 10.0 does.
VERSION = {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": f"cpufw {__version__}"}
CAPABILITIES = ("oob",)
GREETING = {"QMP": {"version": VERSION, "capabilities": list(CAPABILITIES)}}
