"""HMP commands that look into the guest: registers, memory, code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpufw.monitor.hmp.command import hmp
from cpufw.monitor.hmp.line import Format

if TYPE_CHECKING:
    from cpufw.monitor.hmp.shell import Shell

_OCTAL_WIDTH = {1: 3, 2: 6, 4: 11, 8: 22}
_WIDTH = {1: 3, 2: 5, 4: 10, 8: 20}  # of decimal numbers
_LINE_BYTES = 16


@hmp("info registers", "[-a|vcpu]")
def info_registers(shell: Shell, all_: bool, vcpu: int = -1) -> str:
    """Show the registers of the selected CPU, of one, or with -a of all."""
    machine = shell.monitor.machine
    slots = [shell.slot]
    if all_:
        slots = [slot for slot in machine.slots if slot.cpu is not None]
    elif vcpu != -1:
        if vcpu >= len(machine.slots) or machine.slots[vcpu].cpu is None:
            return f"CPU#{vcpu} not available"
        slots = [machine.slots[vcpu]]
    texts = [f"\nCPU#{slot.index}\n{machine.board.registers_text(slot)}" for slot in slots]
    return "\n".join(texts)


@hmp("x", "/fmt addr")
def examine(shell: Shell, how: Format, address: int) -> str:
    """Show memory from a virtual address: /COUNT, then x d u o c or i, then b h w or g."""
    return _dump(shell, how, address, physical=False)


@hmp("xp", "/fmt addr")
def examine_physical(shell: Shell, how: Format, address: int) -> str:
    """Show memory from a physical address, in the same forms."""
    return _dump(shell, how, address, physical=True)


@hmp("print", "/fmt expr")
def print_(shell: Shell, how: Format, value: int) -> str:
    """Show the value of an expression with $registers in it."""
    shell.letter = how.letter or shell.letter
    letter = "x" if shell.letter == "i" else shell.letter
    if letter == "c":
        return _character(value & 0xFF)
    if letter == "d":
        return str(value - (1 << 64) if value >> 63 else value)
    return {"x": f"{value:#x}", "o": f"0{value:o}", "u": str(value)}[letter]


def _dump(shell: Shell, how: Format, address: int, physical: bool) -> str:
    shell.letter = how.letter or shell.letter
    shell.size = how.size or shell.size
    board, slot = shell.monitor.machine.board, shell.slot
    if shell.letter == "i":
        code = board.disassemble(slot, address, how.count, physical)
        lines = [f"0x{at:08x}:  {data.hex(' '):<23}  {text}" for at, data, text in code]
        if len(code) < how.count:
            at = code[-1][0] + len(code[-1][1]) if code else address
            lines.append(f"{at:#x}: unable to read memory")
        return "\n".join(lines)
    size = shell.size if shell.letter != "c" else how.size or 1
    wanted = how.count * size
    data = board.read_memory(slot, address, wanted, physical)
    items = [
        _item(data[at : at + size], shell.letter) for at in range(0, len(data) - size + 1, size)
    ]
    a_line = _LINE_BYTES // size
    lines = [
        f"{address + at * size:016x}: {' '.join(items[at : at + a_line])}"
        for at in range(0, len(items), a_line)
    ]
    if len(data) < wanted:
        lines.append("Cannot access memory")
    return "\n".join(lines)


def _item(data: bytes, letter: str) -> str:
    size, value = len(data), int.from_bytes(data, "little")
    if letter == "c":
        return _character(value & 0xFF)
    if letter == "x":
        return f"0x{value:0{size * 2}x}"
    if letter == "o":
        return f"{f'0{value:o}':>{_OCTAL_WIDTH[size]}}" if value else f"{0:>{_OCTAL_WIDTH[size]}}"
    if letter == "d":
        value = int.from_bytes(data, "little", signed=True)
    return f"{value:>{_WIDTH[size]}}"


def _character(value: int) -> str:
    special = {0x27: "\\'", 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r"}
    plain = chr(value) if 0x20 <= value < 0x7F else f"\\x{value:02x}"
    return f"'{special.get(value, plain)}'"


@hmp("memsave", "addr size file")
def memsave(shell: Shell, address: int, size: int, file: str) -> None:
    """Write memory from a virtual address to a file."""
    _save(shell, "memsave", address, size, file)


@hmp("pmemsave", "addr size file")
def pmemsave(shell: Shell, address: int, size: int, file: str) -> None:
    """Write memory from a physical address to a file."""
    _save(shell, "pmemsave", address, size, file)


def _save(shell: Shell, name: str, address: int, size: int, file: str) -> None:
    arguments = {"val": address, "size": size, "filename": file}
    if name == "memsave":
        arguments["cpu-index"] = shell.slot.index
    shell.monitor_command(name, arguments)
