"""`-chardev` and the places that `-serial`, `-monitor` and `-qmp` name."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cpufw.chardev import Chardev, NullChardev, parse_chardev
from cpufw.errors import ChardevError, UsageError
from cpufw.monitor.address import MonitorAddress
from cpufw.system.errors import refused
from cpufw.system.keyval import Settings, parse_settings

if TYPE_CHECKING:
    from cpufw.system.command_line import CommandLine

_FD_SET = "/dev/fdset/"
_SOCKET = {
    "telnet": ("off", "cpufw speaks no telnet"),
    "websocket": ("off", "cpufw speaks no WebSocket"),
    "delay": ("*", "output is sent at once"),
    "nodelay": ("*", "output is sent at once"),
    "reconnect": ("0", "a server does not connect"),
    "reconnect-ms": ("0", "a server does not connect"),
}
_FORMS = "null, stdio, pty, file:PATH, unix:PATH,server=on,wait=off, chardev:ID or none"


class Chardevs:
    """The chardevs of a command line: opened when somebody uses them, closed with `close`.

    `labels` says what is where, as QMP's query-chardev does: the file name by label.
    """

    def __init__(self, line: CommandLine) -> None:
        self._line = line
        self._open = ExitStack()
        self._users: dict[str, str] = {}
        self.labels: dict[str, str] = {}

    def close(self) -> None:
        """Give back what was opened."""
        self._open.close()

    def chardev(self, identity: str, user: Settings) -> Chardev:
        """The chardev of `-chardev …,id=identity`, for the device `user`."""
        given = self._claim(identity, user)
        try:
            return self._adopt(identity, self._backend(given))
        except (ChardevError, UsageError) as error:
            raise given.fail(str(error)) from None

    def place(self, option: str, text: str, label: str) -> Chardev | None:
        """The chardev that `-serial text` names; None for none."""
        if text == "none":
            return None
        if text.startswith("chardev:"):
            return self.chardev(text.removeprefix("chardev:"), Settings(option, text))
        simple = text.removeprefix("mon:")  # the escape key of stdio is always there
        if simple == "null":
            return self._adopt(label, NullChardev())
        if simple.startswith("unix:"):
            given = _socket(option, text)
            return self._adopt(label, parse_chardev(f"unix:{given.need('path')}"))
        if simple in ("stdio", "pty") or simple.startswith("file:"):
            return self._adopt(label, parse_chardev(simple))
        raise refused(option, text, f"'{text}' is not {_FORMS}")

    def monitors(self) -> list[tuple[str, MonitorAddress | None]]:
        """`control` (QMP) or `readline` (HMP), and where it listens; None: standard input."""
        found: list[tuple[str, MonitorAddress | None]] = []
        for index, (where, mode, text) in enumerate(self._line.monitors):
            if where in ("none", "null"):
                continue
            if where == "stdio" and mode == "readline":
                found.append((mode, None))
            else:
                label = f"compat_monitor{index}"  # what QEMU calls those without a name
                found.append((mode, self._monitor(where, text, label)))
        return found

    def _monitor(self, text: str, option_text: str, label: str) -> MonitorAddress:
        if text.startswith("chardev:"):
            user = Settings("mon", option_text)
            label = text.removeprefix("chardev:")
            given = self._claim(label, user)
            if given.take("backend") != "socket":
                raise user.fail("a monitor needs a socket: -chardev socket,…,server=on,wait=off")
        else:
            given = _socket("qmp", text)
        address = _listening(given)
        self.labels[label] = f"{address},server=on"
        return address

    def _claim(self, identity: str, user: Settings) -> Settings:
        given = self._line.chardevs.get(identity)
        if given is None:
            if user.option == "mon":
                raise user.fail(f'chardev "{identity}" not found')
            raise user.fail(f"Property 'chardev' can't find value '{identity}'")
        if identity in self._users:
            raise user.fail(f"chardev '{identity}' is in use by -{self._users[identity]}")
        self._users[identity] = f"{user.option} {user.text}"
        return Settings(given.option, given.text, dict(given.values))

    def _adopt(self, label: str, chardev: Chardev) -> Chardev:
        self._open.enter_context(chardev)
        self.labels[label] = {"none": "null"}.get(chardev.name, chardev.name)
        return chardev

    def _backend(self, given: Settings) -> Chardev:
        backend = given.take("backend")
        given.ignore({"mux": ("off", "a chardev has one user"), "signal": ("off", "")})
        if "logfile" in given.values:
            raise given.fail("'logfile' is not supported: lead the port into a file")
        match backend:
            case "null":
                chardev: Chardev = NullChardev()
            case "stdio" | "pty":
                chardev = parse_chardev(backend)
            case "file":
                chardev = self._file(given)
            case "socket":
                path = _listening(given).path
                if path is None:
                    raise given.fail("a serial port needs a path: path=PATH,server=on,wait=off")
                return parse_chardev(f"unix:{path}")
            case _:
                raise given.fail(f"'{backend}' is not supported: use {_FORMS}")
        given.done()
        return chardev

    def _file(self, given: Settings) -> Chardev:
        from cpufw.chardev.fd import FdChardev, FileChardev

        path, append = given.need("path"), given.switch("append")
        if not path.startswith(_FD_SET):
            return FileChardev(Path(path), append=append)
        number = path.removeprefix(_FD_SET)
        fd = self._line.fd_sets.get(int(number)) if number.isdecimal() else None
        if fd is None:
            raise given.fail(f"there is no file for {path}: give one with -add-fd")
        try:
            os.fstat(fd)
        except OSError as error:
            raise given.fail(f"file descriptor {fd}: {error.strerror}") from None
        return FdChardev(f"file:{path}", None, fd)


def _socket(option: str, text: str) -> Settings:
    """The settings of `unix:PATH,server=on,wait=off` or `tcp:HOST:PORT,…`."""
    given = parse_settings(option, text, "address")
    kind, _, rest = given.take("address").partition(":")
    if kind == "unix" and rest:
        given.values["path"] = rest
    elif kind == "tcp" and ":" in rest:
        given.values["host"], _, given.values["port"] = rest.rpartition(":")
    else:
        raise given.fail("expected unix:PATH,server=on,wait=off or tcp:HOST:PORT,…")
    return given


def _listening(given: Settings) -> MonitorAddress:
    """The address of a socket that cpufw listens at."""
    given.ignore(_SOCKET)
    server, wait = given.switch("server"), given.switch("wait", True)
    if not server:
        raise given.fail("cpufw does not connect to others: add server=on,wait=off")
    if wait:
        raise given.fail("cpufw does not wait for a client: add wait=off")
    for name in ("tls-creds", "abstract", "tight"):
        if name in given.values and given.take(name) not in ("off", ""):
            raise given.fail(f"'{name}' is not supported")
    if "fd" in given.values:
        address = MonitorAddress(fd=given.number("fd"))
    elif "path" in given.values:
        address = MonitorAddress(path=Path(given.take("path")))
    else:
        host, port = given.take("host", "127.0.0.1"), given.number("port")
        address = MonitorAddress(host=host or "127.0.0.1", port=port)
    given.done()
    return address
