"""Conversations that QEMU 10.0.2 had, and how cpufw's monitor is asked to have them too.

A transcript has lines `-> COMMAND ARGUMENTS <- REPLY`, `EVENT EVENT` and `# SECTION`. Replies that
were cut off are compared as far as they go.
"""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data" / "qemu10" / "transcripts"


@dataclass
class Turn:
    """A command, QEMU's reply (None if it was cut off), and the events around it."""

    name: str
    command: str
    arguments: dict[str, Any]
    reply: dict[str, Any] | None
    events: list[dict[str, Any]] = field(default_factory=list)

    def caused(self, event: dict[str, Any]) -> bool:
        """Whether an event that stands before it is of this command all the same."""
        if self.command == "system_reset":
            return bool(event["event"] == "RESET")
        path = f"/machine/peripheral/{self.arguments.get('id')}"
        return self.command == "device_del" and event["data"].get("path", "").startswith(path)


def transcript(name: str) -> list[Turn]:
    """The turns of a conversation, named `SECTION/N`; `start` is before the first section.

    An event that came before the reply stands before the command that caused it.
    """
    text = lzma.decompress((DATA / f"{name}.txt.xz").read_bytes()).decode()
    section, number = "start", 0
    turns: list[Turn] = []
    waiting: list[dict[str, Any]] = []
    for line in text.splitlines():
        kind, _, rest = line.strip().partition(" ")
        if line.startswith("#"):
            section, number = rest, 0
        elif kind == "EVENT":
            waiting.append(json.loads(rest))
        elif kind == "->":
            number += 1
            asked, _, answered = rest.partition(" <- ")
            command, _, arguments = asked.partition(" ")
            given = json.loads(arguments) or {}
            turn = Turn(f"{section}/{number}", command, given, _reply(answered))
            for event in waiting:
                (turn if not turns or turn.caused(event) else turns[-1]).events.append(event)
            waiting = []
            turns.append(turn)
    turns[-1].events += waiting
    return turns


def _reply(text: str) -> dict[str, Any] | None:
    try:
        reply: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return reply
