"""What the options of `cpufw-system-x86_64` take, as `query-command-line-options` tells it."""

from __future__ import annotations

from collections.abc import Mapping

PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "machine": {
        "type": "string", "acpi": "boolean", "append": "string", "dump-guest-core": "boolean",
        "firmware": "string", "graphics": "boolean", "hpet": "boolean", "initrd": "string",
        "kernel": "string", "mem-merge": "boolean", "memory-backend": "string", "smm": "boolean",
        "usb": "boolean", "vmport": "boolean",
    },
    "accel": {},
    "action": {"panic": "string", "reboot": "string", "shutdown": "string", "watchdog": "string"},
    "add-fd": {"fd": "number", "opaque": "string", "set": "number"},
    "boot-opts": {"menu": "boolean", "order": "string", "strict": "boolean"},
    "chardev": {
        "append": "boolean", "backend": "string", "fd": "string", "host": "string",
        "logappend": "boolean", "logfile": "string", "path": "string", "port": "string",
        "server": "boolean", "wait": "boolean",
    },
    "device": {},
    "drive": {
        "file": "string", "format": "string", "if": "string", "read-only": "boolean",
    },
    "global": {"driver": "string", "property": "string", "value": "string"},
    "memory": {"maxmem": "size", "size": "size", "slots": "number"},
    "mon": {"chardev": "string", "mode": "string", "pretty": "boolean"},
    "msg": {"guest-name": "boolean", "timestamp": "boolean"},
    "name": {"debug-threads": "boolean", "guest": "string", "process": "string"},
    "numa": {},
    "object": {},
    "overcommit": {"cpu-pm": "boolean", "mem-lock": "string"},
    "rtc": {"base": "string", "clock": "string", "driftfix": "string"},
    "sandbox": {
        "elevateprivileges": "string", "enable": "boolean", "obsolete": "string",
        "resourcecontrol": "string", "spawn": "string",
    },
    "smp-opts": {
        "clusters": "number", "cores": "number", "cpus": "number", "dies": "number",
        "maxcpus": "number", "modules": "number", "sockets": "number", "threads": "number",
    },
}  # fmt: skip
"""Each option with the names and QEMU's types of its parameters."""
