"""Which protocol a file is for, and what goes with each."""

from __future__ import annotations

from pathlib import Path

import pytest
from boot_images import LINUX_NOTE, LOAD, bzimage, elf, multiboot, multiboot2, xen_note

from cpufw.errors import ImageError, NotFoundError, UsageError
from cpufw_x86.boot import PROTOCOLS, EntryMode, load_guest

CODE = (LOAD, 0x10_0000, b"\xf4" * 100, 100)
ADDRESSES = (0x10_0000, 0x10_0000, 0, 0, 0x10_0020)
IMAGES = {
    "linux": bzimage(),
    "linux32": bzimage(xloadflags=0),
    "pvh": elf(CODE, notes=[xen_note(0x10_0000)]),
    "multiboot": multiboot(1 << 16, ADDRESSES, b"\xf4"),
    "multiboot2": multiboot2() + elf(CODE),
    "elf": elf(CODE),
    "flat": b"\xf4" * 100,
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "guest"


@pytest.mark.parametrize("protocol", [name for name in IMAGES if name != "multiboot2"])
def test_a_file_tells_its_protocol(protocol: str, image: Path) -> None:
    image.write_bytes(IMAGES[protocol])
    assert load_guest(image).protocol == protocol
    assert load_guest(image, protocol=protocol).protocol == protocol


@pytest.mark.parametrize(
    ("content", "protocol"),
    [
        (elf(CODE, notes=[LINUX_NOTE, xen_note(0x10_0000)]), "linux"),
        (elf(CODE, notes=[(b"GNU\0", 3, b"id"), LINUX_NOTE]), "linux"),
        (elf((LOAD, 0x10_0000, multiboot(3), 100), bits=32), "multiboot"),
        (elf((LOAD, 0x10_0000, multiboot(0), 100), notes=[xen_note(0x10_0000)]), "multiboot"),
        (elf((LOAD, 0x10_0000, bytes(4) + multiboot2(), 100), bits=32), "multiboot2"),
        (elf((LOAD, 0x10_0000, multiboot2(), 100)), "multiboot2"),
        (elf((LOAD, 0x10_0000, bytes(8200) + multiboot(0), 9000)), "elf"),
        (elf((LOAD, 0x10_0000, bytes(32800) + multiboot2(), 33000)), "elf"),
        (elf((LOAD, 0x10_0000, bytes(1) + multiboot(0), 100)), "elf"),
        (b"\0" * 0x1FE + b"\x55\xaa", "flat"),
        (b"\xf4", "flat"),
    ],
)
def test_what_is_several_things_is_what_boots_best(
    content: bytes, protocol: str, image: Path
) -> None:
    image.write_bytes(content)
    assert load_guest(image).protocol == protocol


def test_an_entry_mode_or_a_load_address_asks_for_a_plain_image(image: Path) -> None:
    image.write_bytes(IMAGES["linux"])
    assert load_guest(image, load_address=0x1000).protocol == "flat"
    image.write_bytes(IMAGES["pvh"])
    assert load_guest(image, entry_mode=EntryMode.LONG).protocol == "elf"
    with pytest.raises(UsageError, match="booted as elf, which takes no load address"):
        load_guest(image, load_address=0x1000)


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "flat"])
def test_a_file_that_is_nothing_is_refused_under_every_name(protocol: str, image: Path) -> None:
    image.write_bytes(b"\xf4" * 100)
    with pytest.raises(ImageError, match=f"guest image {image} "):
        load_guest(image, protocol=protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_protocol_does_not_take_is_refused_not_dropped(protocol: str, image: Path) -> None:
    image.write_bytes(bytes(64 << 10) if protocol == "firmware" else IMAGES.get(protocol, b"\xf4"))
    given = {
        "initrd": {"initrd": str(image)},
        "command line": {"append": "quiet"},
        "modules": {"modules": [str(image)]},
        "entry mode": {"entry_mode": EntryMode.LONG},
        "load address": {"load_address": 0x1000},
    }
    for what, argument in given.items():
        if what not in PROTOCOLS[protocol].takes:
            with pytest.raises(UsageError, match=f"{protocol}, which takes no {what}"):
                load_guest(image, protocol=protocol, **argument)  # type: ignore[arg-type]
    assert PROTOCOLS[protocol].takes <= set(given)


def test_a_name_that_is_no_protocol_is_answered_with_the_nearest(image: Path) -> None:
    image.write_bytes(b"\xf4")
    with pytest.raises(NotFoundError, match=r"boot protocol 'mutliboot' .* did you mean multiboot"):
        load_guest(image, protocol="mutliboot")
    with pytest.raises(NotFoundError, match="there is linux, linux32"):
        load_guest(image, protocol="tftp")


@pytest.mark.parametrize("size", [1, 65535, 65537, (16 << 20) + 65536])
def test_firmware_of_another_size_is_refused(size: int, image: Path) -> None:
    image.write_bytes(bytes(size))
    with pytest.raises(ImageError, match=f"has {size} bytes; firmware has a multiple of 64 KiB"):
        load_guest(image, protocol="firmware")


def test_a_pvh_entry_must_be_in_what_is_loaded(image: Path) -> None:
    image.write_bytes(elf(CODE, notes=[xen_note(0x20_0000)]))
    with pytest.raises(ImageError, match="PVH entry at 0x200000, where it loads nothing"):
        load_guest(image)
    image.write_bytes(elf(CODE))
    with pytest.raises(ImageError, match=r"no PVH entry: .* XEN_ELFNOTE_PHYS32_ENTRY"):
        load_guest(image, protocol="pvh")
