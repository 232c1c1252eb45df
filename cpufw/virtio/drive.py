"""`--drive`: a disk as a user describes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cpufw.errors import UsageError

_USAGE = "expected file=PATH[,readonly=on|off][,id=NAME]"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,19}")  # as much as VIRTIO_BLK_T_GET_ID can say


@dataclass(frozen=True)
class Drive:
    """The raw image `file`; `id` is the name by which the guest can know the disk."""

    file: str
    read_only: bool = False
    id: str = ""

    @classmethod
    def parse(cls, text: str) -> Drive:
        """Read `file=PATH[,readonly=on|off][,id=NAME]`; a comma in a path is written twice.

        Raises `UsageError`.
        """
        settings: dict[str, str] = {}
        for setting in _split(text):
            name, equals, value = setting.partition("=")
            if name not in ("file", "readonly", "id") or not equals:
                raise UsageError(f"drive '{text}': '{setting}' is not known, {_USAGE}")
            if name in settings:
                raise UsageError(f"drive '{text}': {name} is given twice")
            settings[name] = value
        if not settings.get("file"):
            raise UsageError(f"drive '{text}' names no file, {_USAGE}")
        read_only = settings.get("readonly", "off")
        if read_only not in ("on", "off"):
            raise UsageError(f"drive '{text}': readonly is '{read_only}', not on or off")
        if "id" in settings and not _NAME.fullmatch(settings["id"]):
            raise UsageError(
                f"drive '{text}': id '{settings['id']}' is not a name of 1 to 20 letters, digits, "
                "'.', '_' and '-' that begins with a letter"
            )
        return cls(settings["file"], read_only == "on", settings.get("id", ""))

    def __str__(self) -> str:
        """What `parse` reads."""
        file = self.file.replace(",", ",,")
        return f"file={file}" + ",readonly=on" * self.read_only + f",id={self.id}" * bool(self.id)


def _split(text: str) -> list[str]:
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
