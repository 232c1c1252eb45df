"""What firmware expects in the PC's CMOS RAM: memory sizes, CPU count, boot order, checksum.

Sources: IBM AT Technical Reference (0x10-0x31); Bochs' and QEMU's layout above it (0x34-0x5f), as
SeaBIOS reads it.
"""

from __future__ import annotations

SHUTDOWN_STATUS = 0x0F
EQUIPMENT, BOOT_ORDER, CPU_COUNT = 0x14, 0x3D, 0x5F

_BASE_KIB, _EXTENDED_KIB, _EXTENDED_KIB_AGAIN = 0x15, 0x17, 0x30
_ABOVE_16M, _ABOVE_4G = 0x34, 0x5B  # in units of 64 KiB
_CHECKED, _CHECKSUM = range(0x10, 0x2E), 0x2E  # the checksum's high byte comes first

_FPU = 1 << 1
_DISK_THEN_CD = 0x32
_CONVENTIONAL_KIB = 640
_KIB, _MIB, _UNIT = 1 << 10, 1 << 20, 1 << 16


def cmos_contents(low: int, high: int, cpus: int) -> dict[int, int]:
    """Byte by byte, the CMOS RAM of a PC with `low` bytes of RAM from 0 and `high` from 4 GiB.

    Sizes too large for their fields are the largest that the field can say.
    """
    contents = {EQUIPMENT: _FPU, BOOT_ORDER: _DISK_THEN_CD, SHUTDOWN_STATUS: 0}
    contents[CPU_COUNT] = min(cpus - 1, 0xFF)
    extended = max(low - _MIB, 0) // _KIB
    for register, length, value in (
        (_BASE_KIB, 2, min(low // _KIB, _CONVENTIONAL_KIB)),
        (_EXTENDED_KIB, 2, extended),
        (_EXTENDED_KIB_AGAIN, 2, extended),
        (_ABOVE_16M, 2, max(low - 16 * _MIB, 0) // _UNIT),
        (_ABOVE_4G, 3, high // _UNIT),
    ):
        shown = min(value, (1 << 8 * length) - 1)
        contents.update(enumerate(shown.to_bytes(length, "little"), register))
    checksum = sum(contents.get(register, 0) for register in _CHECKED)
    contents.update(enumerate(checksum.to_bytes(2, "big"), _CHECKSUM))
    return contents
