"""One QMP client: greeting, negotiation, commands in order, and events."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cpufw.errors import CpufwError
from cpufw.monitor.command import COMMANDS
from cpufw.monitor.errors import CommandNotFoundError, QmpError
from cpufw.monitor.json_stream import JsonStream
from cpufw.monitor.version import GREETING

if TYPE_CHECKING:
    from cpufw.monitor.command import Command
    from cpufw.monitor.monitor import Monitor

_NEGOTIATE = "qmp_capabilities"
_ALLOWED = {"execute", "arguments", "id"}
_MOST_IN_FLIGHT = 8  # in-band commands with oob; qmp-spec, Out-of-band execution
_MOST_HELD = 1000  # events kept back until a reply is there; a guest can cause any number
_SLICE = 0.005  # seconds that one client may keep the others waiting


class Connection(Protocol):
    """What carries a session's bytes."""

    congested: bool
    """Whether the client leaves so much unread that it should get no more replies for now."""

    def write(self, data: bytes) -> None:
        """Send `data` when the client takes it."""

    def read_on(self, on: bool) -> None:
        """Whether to hand over what the client sends."""


class Session:
    """The conversation with one client.

    All methods but the commands themselves run on the event loop's thread.
    """

    def __init__(self, monitor: Monitor, connection: Connection) -> None:
        self.monitor = monitor
        self.capabilities: frozenset[str] = frozenset()
        self.negotiated = False
        self.received_fds: deque[int] = deque()
        """File descriptors that came with messages and that no command has taken yet."""
        self.fds: dict[str, int] = {}
        """Those that `getfd` named."""
        self._connection, self._stream = connection, JsonStream()
        self._waiting: deque[Any] = deque()
        self._task: asyncio.Task[None] | None = None
        self._held: deque[Mapping[str, Any]] = deque()
        self._closed = False

    def greet(self) -> None:
        """Say who this is."""
        self.send(GREETING)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one JSON value."""
        self._connection.write(json.dumps(message).encode() + b"\r\n")

    def on_event(self, message: Mapping[str, Any], of_command: bool) -> None:
        """Pass an event on, once the client is ready for them.

        What the guest does while the client's command is carried out, maybe because of it, comes
        after the reply, as with QEMU, whose guests wait meanwhile; what the command itself reports
        (`of_command`) comes before it.
        """
        if not self.negotiated:
            return
        if self._task is not None and not of_command and len(self._held) < _MOST_HELD:
            self._held.append(message)
        else:
            self.send(message)

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """What the client sent; `fds` replace those that no command took."""
        if fds:
            self.drop_received_fds()
            self.received_fds.extend(fds)
        self._stream.push(data)
        self.serve()

    def serve(self) -> None:
        """Answer what has arrived: out-of-band commands now, the others in order.

        It reads no more while as many commands wait as the specification allows, or the client
        does not take its replies.
        """
        if self._closed:
            return
        until = time.monotonic() + _SLICE
        if self._takes_more():
            for request in self._stream.values():
                if self._is_oob(request):
                    self.send(self._answer(request))
                else:
                    self._waiting.append(request)
                    self._run_waiting()
                if not self._takes_more():
                    break
                if time.monotonic() > until:
                    self._connection.read_on(False)
                    asyncio.get_running_loop().call_soon(self.serve)
                    return
        self._connection.read_on(self._takes_more())

    def close(self) -> None:
        """The client has gone; a command under way is finished all the same."""
        self._closed = True
        self._waiting.clear()
        self.drop_received_fds()
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()

    def drop_received_fds(self) -> None:
        """Close those that came with messages and that no command has taken."""
        while self.received_fds:
            os.close(self.received_fds.popleft())

    def _takes_more(self) -> bool:
        in_flight = len(self._waiting) + (self._task is not None)
        most = _MOST_IN_FLIGHT if self._has("oob") else 0
        return in_flight <= most and not self._connection.congested and not self._closed

    def _has(self, capability: str) -> bool:
        return capability in self.capabilities

    def _is_oob(self, request: Any) -> bool:
        return isinstance(request, dict) and "exec-oob" in request and self._has("oob")

    def _run_waiting(self) -> None:
        """Answer what waits, until a command blocks."""
        while self._waiting and self._task is None:
            request = self._waiting.popleft()
            command = _named(request)
            if self.negotiated and command is not None and command.blocks:
                loop = asyncio.get_running_loop()
                self._task = loop.create_task(self._run_blocking(request))
            else:
                self.send(self._answer(request))

    async def _run_blocking(self, request: Any) -> None:
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self.monitor.worker, self._answer, request)
        self._task = None
        if not self._closed:
            self.send(answer)
            while self._held:
                self.send(self._held.popleft())
            self._run_waiting()
            self.serve()

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
        name, is_oob, arguments = _checked(request, self._has("oob"))
        command = COMMANDS.get(name)
        if not self.negotiated and name != _NEGOTIATE:
            raise CommandNotFoundError(f"Expecting capabilities negotiation with '{_NEGOTIATE}'")
        if self.negotiated and name == _NEGOTIATE and not is_oob:
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


def _checked(request: Any, takes_oob: bool) -> tuple[str, bool, dict[str, Any]]:
    """Command name, whether it is out of band, and the arguments."""
    if not isinstance(request, dict):
        raise QmpError("QMP input must be a JSON object")
    for member in request:
        if member not in _ALLOWED and not (takes_oob and member == "exec-oob"):
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
