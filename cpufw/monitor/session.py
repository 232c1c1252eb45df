"""One QMP client: greeting, negotiation, commands in order, and events."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cpufw.errors import CpufwError
from cpufw.monitor.command import COMMANDS
from cpufw.monitor.errors import CommandNotFoundError, QmpError
from cpufw.monitor.json_stream import JsonStream
from cpufw.monitor.version import VERSION

if TYPE_CHECKING:
    from cpufw.monitor.command import Command
    from cpufw.monitor.monitor import Monitor

CAPABILITIES = ("oob",)

_NEGOTIATE = "qmp_capabilities"
_ALLOWED = {"execute", "exec-oob", "arguments", "id"}


class Session:
    """The conversation with one client; `write` sends it bytes.

    All methods but the commands themselves run on the event loop's thread.
    """

    def __init__(self, monitor: Monitor, write: Callable[[bytes], None]) -> None:
        self.monitor = monitor
        self.capabilities: frozenset[str] = frozenset()
        self.negotiated = False
        self.received_fds: deque[int] = deque()
        """File descriptors that came with messages and that no command has taken yet."""
        self.fds: dict[str, int] = {}
        """Those that `getfd` named."""
        self._write, self._stream = write, JsonStream()
        self._waiting: deque[Any] = deque()
        self._task: asyncio.Task[None] | None = None

    def greet(self) -> None:
        """Say who this is."""
        self.send({"QMP": {"version": VERSION, "capabilities": list(CAPABILITIES)}})

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one JSON value."""
        self._write(json.dumps(message).encode() + b"\r\n")

    def on_event(self, message: Mapping[str, Any]) -> None:
        """Pass an event on, once the client is ready for them."""
        if self.negotiated:
            self.send(message)

    def feed(self, data: bytes) -> None:
        """What the client sent; out-of-band commands run now, others in order."""
        for request in self._stream.feed(data):
            if isinstance(request, dict) and "exec-oob" in request and self._has("oob"):
                self.send(self._answer(request))
            else:
                self._waiting.append(request)
        if self._waiting and self._task is None:
            self._serve()

    @property
    def backlog(self) -> int:
        """How many requests wait for their turn."""
        return len(self._waiting)

    def close(self) -> None:
        """The client has gone; a command under way is finished all the same."""
        self._waiting.clear()

    def _has(self, capability: str) -> bool:
        return capability in self.capabilities

    def _serve(self) -> None:
        """Answer what waits, until a command blocks."""
        while self._waiting:
            request = self._waiting.popleft()
            command = _named(request)
            if self.negotiated and command is not None and command.blocks:
                self._task = asyncio.get_running_loop().create_task(self._serve_blocking(request))
                return
            self.send(self._answer(request))

    async def _serve_blocking(self, request: Any) -> None:
        loop = asyncio.get_running_loop()
        try:
            self.send(await loop.run_in_executor(self.monitor.worker, self._answer, request))
        finally:
            self._task = None
        self._serve()

    def _answer(self, request: Any) -> dict[str, Any]:
        """The reply to one request, an error among them."""
        mark = {"id": request["id"]} if isinstance(request, dict) and "id" in request else {}
        try:
            return {"return": self._run(request), **mark}
        except CpufwError as error:
            kind = error.error_class if isinstance(error, QmpError) else QmpError.error_class
            return {"error": {"class": kind, "desc": str(error)}, **mark}
        except Exception as error:  # a defect of ours must not end the guest, nor other clients
            text = f"cpufw failed: {type(error).__name__}: {error}"
            return {"error": {"class": QmpError.error_class, "desc": text}, **mark}

    def _run(self, request: Any) -> Any:
        if isinstance(request, QmpError):
            raise request
        name, is_oob, arguments = _checked(request)
        if is_oob and not self._has("oob"):
            raise QmpError("QMP input member 'exec-oob' is unexpected")
        command = COMMANDS.get(name)
        if not self.negotiated and name != _NEGOTIATE:
            if command is None:
                raise CommandNotFoundError(f"The command {name} has not been found")
            raise CommandNotFoundError(
                f"Expecting capabilities negotiation with '{_NEGOTIATE}' before command '{name}'"
            )
        if self.negotiated and name == _NEGOTIATE:
            raise CommandNotFoundError(
                "Capabilities negotiation is already complete, command ignored"
            )
        if command is None:
            raise CommandNotFoundError(f"The command {name} has not been found")
        if is_oob and not command.allow_oob:
            raise QmpError(f"The command {name} does not support OOB")
        return command.run(self.monitor, self, arguments)


def _named(request: Any) -> Command | None:
    return COMMANDS.get(request["execute"]) if _is_command(request) else None


def _is_command(request: Any) -> bool:
    return isinstance(request, dict) and isinstance(request.get("execute"), str)


def _checked(request: Any) -> tuple[str, bool, dict[str, Any]]:
    """Command name, whether it is out of band, and the arguments."""
    if not isinstance(request, dict):
        raise QmpError("QMP input must be a JSON object")
    for member in request:
        if member not in _ALLOWED:
            raise QmpError(f"QMP input member '{member}' is unexpected")
    is_oob = "exec-oob" in request
    if is_oob and "execute" in request:
        raise QmpError("QMP input member 'execute' clashes with 'exec-oob'")
    if not is_oob and "execute" not in request:
        raise QmpError("QMP input lacks member 'execute'")
    verb = "exec-oob" if is_oob else "execute"
    if not isinstance(request[verb], str):
        raise QmpError(f"QMP input member '{verb}' must be a string")
    arguments = request.get("arguments", {})
    if not isinstance(arguments, dict):
        raise QmpError("QMP input member 'arguments' must be an object")
    return request[verb], is_oob, arguments
