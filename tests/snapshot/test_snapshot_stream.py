"""The stream of saved machines: what was written comes back, and nothing else is believed."""

from __future__ import annotations

import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw.errors import StateError
from cpufw.snapshot import encoding, pages
from cpufw.snapshot.pages import PAGE, Pages
from cpufw.snapshot.stream import Kind, Record, StreamReader, StreamWriter

RECORDS = [
    Record(Kind.STATE, "machine", b'{"version":1}'),
    Record(Kind.PAGES, "memory", bytes(range(256)) * 40),
    Record(Kind.STATE, "leer/ünïcode", b""),
]


def written(records: list[Record], *, compress: bool = False) -> bytes:
    out = io.BytesIO()
    writer = StreamWriter(out.write, compress=compress)
    for record in records:
        writer.record(*record)
    writer.end()
    assert writer.bytes == len(out.getvalue())
    return out.getvalue()


def read(stream: bytes) -> list[Record]:
    file = io.BytesIO(stream)
    reader = StreamReader(file.read, "snapshot s")
    records = list(reader)
    reader.check_nothing_follows()
    return records


@given(
    st.lists(
        st.builds(
            Record, st.sampled_from([Kind.STATE, Kind.PAGES]), st.text(max_size=60), st.binary()
        )
    )
)
def test_records_come_back(records: list[Record]) -> None:
    assert read(written(records)) == records


def test_compressed_records_come_back() -> None:
    pytest.importorskip("zstandard", reason="the optional package zstandard is not installed")
    stream = written(RECORDS, compress=True)
    assert len(stream) < len(written(RECORDS))
    assert read(stream) == RECORDS


def test_every_flipped_byte_is_noticed() -> None:
    stream = written(RECORDS)
    for place in range(len(stream)):
        for bit in (0x01, 0x80):
            broken = bytearray(stream)
            broken[place] ^= bit
            with pytest.raises(StateError, match=r"^snapshot s is "):
                read(bytes(broken))


def test_every_missing_end_is_noticed() -> None:
    stream = written(RECORDS)
    for length in range(len(stream)):
        with pytest.raises(StateError, match=r"cut short|not a saved machine|damaged"):
            read(stream[:length])


def test_missing_and_further_records_are_noticed() -> None:
    first, second = written(RECORDS[:1]), written(RECORDS[:2])
    end = len(first) - len(written([])) + 16
    with pytest.raises(StateError, match="records of it are missing"):
        read(second[:end] + second[-len(written([])) + 16 :])
    with pytest.raises(StateError, match="something follows its end"):
        read(first + b"\0")


def test_damage_names_the_record() -> None:
    stream = bytearray(written(RECORDS))
    stream[stream.index(b'{"version"')] ^= 1
    with pytest.raises(StateError, match=r"damaged in record 1 \(machine\): the checksum"):
        read(bytes(stream))


def test_a_later_layout_is_refused() -> None:
    preamble = b"CPUFWSAV" + (2).to_bytes(4, "little")
    with pytest.raises(StateError, match="has layout 2, this cpufw reads up to 1: load it with"):
        read(preamble + zlib.crc32(preamble).to_bytes(4, "little"))


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"CPUFW", b"\0" * 4096])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(StateError, match="snapshot s is not a saved machine of cpufw"):
        read(content)


def test_states_come_back() -> None:
    state = {"version": 1, "fields": {"a": -1, "b": b"\0\xff", "c": [{"d": "ü"}, True, None]}}
    assert encoding.decode(encoding.encode(state), "s") == state


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"a":{"base64":"*"}}', b"\xff", b"[" * 9999]
)
def test_what_is_no_state_is_refused(content: bytes) -> None:
    with pytest.raises(StateError, match="section x is not a state"):
        encoding.decode(content, "section x")


def test_pages_come_back() -> None:
    chunk = Pages(0x10_0000, 11, b"\x0f\x04", b"\x01\x04", b"\x11" * PAGE + b"\x22" * PAGE)
    assert pages.decode(pages.encode(chunk), "s") == chunk
    assert pages.all_pages(11) == b"\xff\x07"


@pytest.mark.parametrize(
    "chunk",
    [
        Pages(1, 1, b"\x01", b"\x00", b""),  # not at a page
        Pages(0, 0, b"", b"", b""),
        Pages(0, 257, bytes(33), bytes(33), b""),
        Pages(0, 8, b"\x01", b"\x03", bytes(2 * PAGE)),  # filled, but not sent
        Pages(0, 4, b"\x10", b"\x00", b""),  # beyond the last page
        Pages(0, 8, b"\x03", b"\x03", bytes(PAGE)),
        Pages(0, 8, b"\x03", b"\x01", bytes(PAGE + 1)),
    ],
)
def test_wrong_pages_are_refused(chunk: Pages) -> None:
    with pytest.raises(StateError, match=r"^record 7 "):
        pages.decode(pages.encode(chunk), "record 7")
