"""The AML writer against iasl: the same ASL must give the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from acpi_text import IASL, PACKAGE, iasl
from hypothesis import given
from hypothesis import strategies as st

from cpufw_x86.acpi import aml, resources

PREAMBLE = r"""
    OperationRegion (REGS, SystemIO, 0x0CD8, 0x0C)
    Field (REGS, ByteAcc, NoLock, WriteAsZeros) { Offset (4), BITA, 1, , 3, BITB, 4, BYTE, 8 }
    Mutex (MUTX, 0)
    Device (DEV0) { Method (METH, 2) { } }
    Scope (\_SB) { Device (DEV1) { Device (DEV2) { } } }
"""
PREAMBLE_TERMS = (
    aml.operation_region("REGS", aml.SYSTEM_IO, 0xCD8, 12),
    aml.field(
        "REGS",
        aml.BYTE_ACCESS,
        aml.WRITE_AS_ZEROS,
        ("", 32),
        ("BITA", 1),
        ("", 3),
        ("BITB", 4),
        ("BYTE", 8),
    ),
    aml.mutex("MUTX"),
    aml.device("DEV0", aml.method("METH", 2)),
    aml.scope(r"\_SB", aml.device("DEV1", aml.device("DEV2"))),
)


def in_method(*terms: aml.Term) -> bytes:
    return aml.method("TEST", 2, *terms, serialized=True)


def asl_method(body: str) -> str:
    return f"Method (TEST, 2, Serialized) {{ {body} }}"


LONG = 5000  # bytes: a package length of three bytes
NOOP = aml.store(aml.argument(0), aml.local(0))

SNIPPETS: dict[str, tuple[str, bytes]] = {
    "empty table": ("", b""),
    **{
        f"number {value:#x}": (f"Name (NUMB, {value:#x})", aml.named("NUMB", value))
        for value in (2, 0xFF, 0x100, 0xFFFF, 0x1_0000, 0xFFFF_FFFF, 0x1_0000_0000)
    },
    "zero": ("Name (NUMB, Zero)", aml.named("NUMB", 0)),  # without optimising iasl is literal
    "one": ("Name (NUMB, One)", aml.named("NUMB", 1)),
    "string": ('Name (TEXT, "ACPI0007")', aml.named("TEXT", aml.string("ACPI0007"))),
    "eisa id": ('Name (_HID, EisaId ("PNP0A03"))', aml.named("_HID", aml.eisa_id("PNP0A03"))),
    "eisa id 0": ('Name (_HID, EisaId ("PNP0000"))', aml.named("_HID", aml.eisa_id("PNP0000"))),
    "buffer": ("Name (BUFF, Buffer () {1, 2, 3})", aml.named("BUFF", aml.buffer(b"\1\2\3"))),
    "long buffer": (
        "Name (BUFF, Buffer () {" + ",".join(["7"] * LONG) + "})",
        aml.named("BUFF", aml.buffer(b"\7" * LONG)),
    ),
    "package": (
        r"Name (PACK, Package () {Zero, 5, DEV0, \_SB.DEV1.DEV2})",
        aml.named("PACK", aml.package(0, 5, "DEV0", r"\_SB.DEV1.DEV2")),
    ),
    "two-segment path": (r"Scope (\_SB.DEV1) {}", aml.scope(r"\_SB.DEV1")),
    "three-segment path": (r"Scope (\_SB.DEV1.DEV2) {}", aml.scope(r"\_SB.DEV1.DEV2")),
    "root": (r"Scope (\) {}", aml.scope("\\")),
    "parent": (
        "Device (DEV3) { Alias (^DEV0, OTHR) }",
        aml.device("DEV3", b"\x06" + aml.name_string("^DEV0") + aml.name_string("OTHR")),
    ),
    "short name": ("Device (PIC) {}", aml.device("PIC")),
    "dword field": (
        "Field (REGS, DWordAcc, NoLock, Preserve) { SEL, 32, Offset (8), DATA, 32 }",
        aml.field("REGS", aml.DWORD_ACCESS, aml.PRESERVE, ("SEL", 32), ("", 32), ("DATA", 32)),
    ),
    "wide field": (
        "Field (REGS, ByteAcc, NoLock, Preserve) { WIDE, 96 }",
        aml.field("REGS", aml.BYTE_ACCESS, aml.PRESERVE, ("WIDE", 96)),
    ),
    "mutex": (
        asl_method("Acquire (MUTX, 0xFFFF) Release (MUTX)"),
        in_method(aml.acquire("MUTX"), aml.release("MUTX")),
    ),
    "store": (
        asl_method("Store (Arg0, BYTE) Store (BYTE, Local7)"),
        in_method(aml.store(aml.argument(0), "BYTE"), aml.store("BYTE", aml.local(7))),
    ),
    "if else": (
        asl_method("If (LLess (Arg0, 300)) { Return (One) } Else { Return (BITA) }"),
        in_method(
            aml.if_(aml.less(aml.argument(0), 300), aml.return_(1)),
            aml.else_(aml.return_("BITA")),
        ),
    ),
    "while": (
        asl_method("While (One) { If (BITB) { Break } }"),
        in_method(aml.while_(1, aml.if_("BITB", aml.break_()))),
    ),
    "notify": (
        asl_method("Notify (DEV0, Arg1)"),
        in_method(aml.notify("DEV0", aml.argument(1))),
    ),
    "call": (
        asl_method(r"\DEV0.METH (3, Arg0)"),
        in_method(aml.call(r"\DEV0.METH", 3, aml.argument(0))),
    ),
    "method of 63 bytes": (
        asl_method("Store (Arg0, Local0) " * 20),
        in_method(*[NOOP] * 20),
    ),
    "long method": (
        asl_method("Store (Arg0, Local0) " * 1400),
        in_method(*[NOOP] * 1400),
    ),
    "resources": (
        """Name (_CRS, ResourceTemplate () {
            IO (Decode16, 0x3F8, 0x3F8, 1, 8)
            IRQNoFlags () {4}
            Memory32Fixed (ReadWrite, 0xFEB00000, 0x200)
            Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { 16 }
            Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { 300 }
            WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 255, 0, 256)
            WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                0, 0xD00, 0xFFFF, 0, 0xF300)
            DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                0, 0xC0000000, 0xFEAFFFFF, 0, 0x3EB00000)
            QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                0, 0x800000000, 0xFFFFFFFFF, 0, 0x800000000)
        })""",
        aml.named(
            "_CRS",
            resources.template(
                resources.ports(range(0x3F8, 0x400)),
                resources.irq(4),
                resources.memory(0xFEB0_0000, 0x200),
                resources.interrupt(16),
                resources.interrupt(300),
                resources.bus_numbers(range(256)),
                resources.port_window(range(0xD00, 0x1_0000)),
                resources.memory_window(range(0xC000_0000, 0xFEB0_0000)),
                resources.memory_window(range(0x8_0000_0000, 0x10_0000_0000)),
            ),
        ),
    ),
}


@pytest.mark.skipif(IASL is None, reason=f"iasl (package {PACKAGE}) is not installed")
@pytest.mark.parametrize("name", SNIPPETS)
def test_same_bytes_as_iasl(name: str, tmp_path: Path) -> None:
    asl, expected = SNIPPETS[name]
    source = f'DefinitionBlock ("", "SSDT", 2, "CPUFW", "TEST", 1) {{ {PREAMBLE} {asl} }}'
    (tmp_path / "test.asl").write_text(source, encoding="ascii")
    said = iasl(tmp_path, "-oa", "-of", "-p", "test", "test.asl")
    assert "0 Errors" in said, said
    preamble = b"".join(PREAMBLE_TERMS)
    assert (tmp_path / "test.aml").read_bytes()[36:] == preamble + expected


@pytest.mark.parametrize("name", ["", "TOOLONG", "1ABC", "abc", "A-B", "Ä"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a name of AML"):
        aml.name_segment(name)


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_what_is_no_number_of_64_bits_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        aml.integer(value)


@given(st.sampled_from((0, 1, 61, 62, 63, 64, 4092, 4093, 4094, 1 << 20, (1 << 20) + 7)))
def test_package_length_counts_itself(size: int) -> None:
    whole = aml.sized(bytes(size))
    extra = whole[0] >> 6
    length = whole[0] & 0x3F if not extra else whole[0] & 0xF
    for position in range(extra):
        length |= whole[1 + position] << 4 + 8 * position
    assert length == len(whole)
    assert len(whole) == 1 + extra + size
    assert not extra or len(whole) - 1 > (0x3F, 0xFFF, 0xF_FFFF)[extra - 1], "no longer than needed"
