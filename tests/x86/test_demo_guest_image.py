"""The demo guest's image: small, loadable by any multiboot loader, and made from its source."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from cpufw_x86.cpuid import CPUID_WORDS, word_place

GUEST = Path(__file__).resolve().parents[2] / "plugins/x86/guest"
IMAGE = (GUEST / "demo.bin").read_bytes()
LOAD_ADDRESS = 0x100000


def test_readme_command_makes_the_committed_image(tmp_path: Path) -> None:
    missing = [tool for tool in ("as", "ld") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"binutils is not installed: no {' and no '.join(missing)}")
    readme = (GUEST / "README.md").read_text()
    command = re.search(r"^as .*$", readme, re.MULTILINE)
    assert command is not None
    for source in ("demo.S", "demo.ld"):
        shutil.copy(GUEST / source, tmp_path)
    subprocess.run(command.group(), shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / "demo.bin").read_bytes() == IMAGE


def test_multiboot_header_says_what_to_load_where() -> None:
    """Multiboot 0.6.96, 3.1: in the first 8192 bytes, 4-byte aligned, sums to zero."""
    offset = IMAGE.index(struct.pack("<I", 0x1BADB002))
    assert offset % 4 == 0
    assert offset < 8192 - 32
    magic, flags, checksum, header, load, load_end, bss_end, entry = struct.unpack_from(
        "<8I", IMAGE, offset
    )
    assert (magic + flags + checksum) % 2**32 == 0
    assert flags == 1 << 16, "addresses are given, and nothing else is asked of the loader"
    assert (header, load, entry) == (LOAD_ADDRESS + offset, LOAD_ADDRESS, LOAD_ADDRESS)
    assert load_end == LOAD_ADDRESS + len(IMAGE)
    assert load_end <= bss_end < 4 << 20, "4 MiB of RAM are enough"


def test_it_is_small() -> None:
    assert len(IMAGE) < 8192


def test_each_word_is_read_where_its_name_says() -> None:
    rows = re.findall(
        r"^    word +([0-9A-F.]+X), +0x([0-9a-f]{8}), (\d+), (E[A-D]X)",
        (GUEST / "demo.S").read_text(),
        re.MULTILINE,
    )
    assert len(rows) > 20
    for name, leaf, subleaf, register in rows:
        place = (int(leaf, 16), int(subleaf), ("EAX", "EBX", "ECX", "EDX").index(register))
        assert name in CPUID_WORDS
        assert word_place(name) == place
