"""From a file to a guest image: which boot protocol it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from cpufw.errors import ImageError, NotFoundError, UsageError
from cpufw_x86.boot.cpu_start import EntryMode
from cpufw_x86.boot.elf import is_elf, parse_elf
from cpufw_x86.boot.files import read_file
from cpufw_x86.boot.firmware import FirmwareImage
from cpufw_x86.boot.guest_image import GuestImage, image_name
from cpufw_x86.boot.initrd import Initrd
from cpufw_x86.boot.linux import LinuxImage, bzimage, is_linux, vmlinux
from cpufw_x86.boot.linux_header import has_setup_header
from cpufw_x86.boot.modules import read_modules, split_modules
from cpufw_x86.boot.multiboot import Multiboot1Image, Multiboot2Image
from cpufw_x86.boot.multiboot_header import find_multiboot, find_multiboot2
from cpufw_x86.boot.plain import elf_image, flat_image
from cpufw_x86.boot.pvh import PvhImage, pvh_entry


class _Request(NamedTuple):
    """What a user gave along with an image."""

    path: Path
    content: bytes
    initrd: str | None
    append: str
    modules: tuple[str, ...]
    entry_mode: EntryMode | None
    load_address: int | None

    @property
    def name(self) -> str:
        return image_name(self.path)

    def disk(self) -> Initrd | None:
        return Initrd(self.initrd) if self.initrd is not None else None

    def given(self) -> dict[str, bool]:
        return {
            "initrd": self.initrd is not None,
            "command line": bool(self.append),
            "modules": bool(self.modules),
            "entry mode": self.entry_mode is not None,
            "load address": self.load_address is not None,
        }


class BootProtocol(NamedTuple):
    """A way to boot; `takes` says what can be given along."""

    description: str
    takes: frozenset[str]
    load: Callable[[_Request], GuestImage]


def _linux(mode: EntryMode) -> Callable[[_Request], GuestImage]:
    def load(request: _Request) -> GuestImage:
        if is_elf(request.content):
            return _vmlinux(request, mode)
        kernel = bzimage(request.content, request.name, mode)
        return LinuxImage(request.path, kernel, request.append, request.disk())

    return load


def _vmlinux(request: _Request, mode: EntryMode | None = None) -> GuestImage:
    content = request.content
    if not is_elf(content):
        from cpufw_x86.boot.payload import unpack_bzimage  # with decompressors, seldom needed

        content = unpack_bzimage(content, request.name)
    kernel = vmlinux(parse_elf(content, request.name), request.name, mode)
    return LinuxImage(request.path, kernel, request.append, request.disk())


def _pvh(request: _Request) -> GuestImage:
    elf = parse_elf(_need_elf(request), request.name)
    return PvhImage(request.path, elf, request.append, request.disk())


def _module_lines(request: _Request) -> tuple[str, ...]:
    return (*(split_modules(request.initrd) if request.initrd else ()), *request.modules)


def _multiboot(request: _Request) -> GuestImage:
    modules = read_modules(_module_lines(request))
    return Multiboot1Image(request.path, request.content, request.append, modules)


def _multiboot2(request: _Request) -> GuestImage:
    modules = read_modules(_module_lines(request))
    return Multiboot2Image(request.path, request.content, request.append, modules)


def _elf(request: _Request) -> GuestImage:
    elf = parse_elf(_need_elf(request), request.name)
    return elf_image(request.path, elf, request.entry_mode)


def _need_elf(request: _Request) -> bytes:
    if not is_elf(request.content):
        raise ImageError(f"{request.name} is not ELF")
    return request.content


def _flat(request: _Request) -> GuestImage:
    return flat_image(request.path, request.content, request.entry_mode, request.load_address)


def _firmware(request: _Request) -> GuestImage:
    return FirmwareImage(request.path, request.content)


_KERNEL = frozenset({"initrd", "command line"})
_MODULES = _KERNEL | {"modules"}

PROTOCOLS: Mapping[str, BootProtocol] = MappingProxyType(
    {
        "linux": BootProtocol(
            "Linux bzImage or ELF vmlinux, by its 64-bit entry", _KERNEL, _linux(EntryMode.LONG)
        ),
        "linux32": BootProtocol(
            "Linux bzImage or 32-bit ELF vmlinux, by its 32-bit entry",
            _KERNEL,
            _linux(EntryMode.PROTECTED),
        ),
        "vmlinux": BootProtocol(
            "Linux ELF vmlinux, or the one in a bzImage unpacked before the start",
            _KERNEL,
            _vmlinux,
        ),
        "pvh": BootProtocol("ELF with a PVH entry (Xen's direct boot ABI)", _KERNEL, _pvh),
        "multiboot": BootProtocol("Multiboot kernel, ELF or flat", _MODULES, _multiboot),
        "multiboot2": BootProtocol("Multiboot2 kernel, ELF or flat", _MODULES, _multiboot2),
        "elf": BootProtocol("ELF executable", frozenset({"entry mode"}), _elf),
        "flat": BootProtocol("flat binary", frozenset({"entry mode", "load address"}), _flat),
        "firmware": BootProtocol("firmware image that ends at 4 GiB", frozenset(), _firmware),
    }
)
"""The boot protocols by the names that a user gives."""


def load_guest(
    path: Path | str,
    *,
    protocol: str | None = None,
    initrd: str | None = None,
    append: str = "",
    modules: Sequence[str] = (),
    entry_mode: EntryMode | None = None,
    load_address: int | None = None,
) -> GuestImage:
    """Read the guest image at `path` with what its boot protocol takes along.

    `protocol` is one of PROTOCOLS, by default what the file is (see `detect`). `initrd` is a file;
    for Multiboot it is a list of modules, `"FILE ARGUMENTS,FILE"`, and each of `modules` is one
    more. `entry_mode` and `load_address` are for images without a protocol. Raises `ImageError` for
    files that are malformed or not of that protocol, `UsageError` for what it does not take.
    """
    path = Path(path)
    request = _Request(
        path,
        read_file(path, "guest image"),
        initrd,
        append,
        tuple(modules),
        entry_mode,
        load_address,
    )
    if protocol is None:
        plain = entry_mode is not None or load_address is not None
        protocol = (
            _detect_plain(request.content) if plain else detect(request.content, request.name)
        )
    if protocol not in PROTOCOLS:
        raise NotFoundError(
            "boot protocol", protocol, PROTOCOLS, f"there is {', '.join(PROTOCOLS)}"
        )
    chosen = PROTOCOLS[protocol]
    for what, is_given in request.given().items():
        if is_given and what not in chosen.takes:
            raise UsageError(f"{request.name} is booted as {protocol}, which takes no {what}")
    return chosen.load(request)


def detect(content: bytes, name: str) -> str:
    """The name of the protocol that an image is for; errors call it `name`.

    In this order: a Linux bzImage, ELF with Linux' notes, a Multiboot header, a Multiboot2 header,
    ELF with a PVH note, any other ELF; all else is flat. Raises `ImageError` for malformed ELF.
    """
    if has_setup_header(content):
        return "linux" if bzimage(content, name, None).mode is EntryMode.LONG else "linux32"
    elf = parse_elf(content, name) if is_elf(content) else None
    if elf is not None and is_linux(elf):
        return "linux" if elf.wide else "linux32"
    if find_multiboot(content) is not None:
        return "multiboot"
    if find_multiboot2(content) is not None:
        return "multiboot2"
    if elf is not None and pvh_entry(elf) is not None:
        return "pvh"
    return _detect_plain(content)


def _detect_plain(content: bytes) -> str:
    return "elf" if is_elf(content) else "flat"
