"""The keys that a terminal's user speaks to cpufw with, in the middle of speaking to the guest."""

from __future__ import annotations

ESCAPE = 0x01  # Ctrl-A

HELP = b"""
Ctrl-A h       this help
Ctrl-A x       end the run
Ctrl-A b       send a break (Linux: SysRq)
Ctrl-A c       the monitor, where there is one
Ctrl-A Ctrl-A  send Ctrl-A, also Ctrl-A a
"""


class EscapeKeys:
    """Tells keys for the guest from keys for cpufw, also where a read cuts between the two."""

    def __init__(self) -> None:
        self._escaped = False

    def split(self, data: bytes) -> list[bytes | str]:
        """`data` in order: bytes for the guest, and each key that followed Ctrl-A.

        Keys that mean nothing are left out.
        """
        parts: list[bytes | str] = []
        plain = bytearray()
        for byte in data:
            if not self._escaped:
                if byte == ESCAPE:
                    self._escaped = True
                else:
                    plain.append(byte)
                continue
            self._escaped = False
            if byte == ESCAPE or byte == ord("a"):
                plain.append(ESCAPE)
            elif chr(byte) in "hxbc":
                if plain:
                    parts.append(bytes(plain))
                    plain.clear()
                parts.append(chr(byte))
        if plain:
            parts.append(bytes(plain))
        return parts
