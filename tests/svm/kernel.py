"""From Debian's kernel package: the uncompressed kernel, and its modules in load order."""

import re
import struct
import subprocess
from pathlib import Path

from steps import HostError

# Linux x86 boot protocol, "Details of Header Fields" (Documentation/arch/x86/boot.rst).
SETUP_SECTS = 0x1F1
PAYLOAD_OFFSET = 0x248
PAYLOAD_LENGTH = 0x24C
SECTOR = 512
DEFAULT_SETUP_SECTS = 4  # what the protocol says a zero stands for

LZ4_LEGACY_MAGIC = b"\x02!L\x18"
ELF_MAGIC = b"\x7fELF"


def uncompressed_kernel(bzimage: bytes, root: Path) -> bytes:
    """The ELF kernel inside a bzImage, unpacked with the lz4 of the root file system `root`.

    QEMU starts it at its PVH entry; unpacking the bzImage under TCG would take longer than the
    whole rest of the boot.
    """
    setup_sectors = bzimage[SETUP_SECTS] or DEFAULT_SETUP_SECTS
    offset, length = struct.unpack_from("<II", bzimage, PAYLOAD_OFFSET)
    start = (setup_sectors + 1) * SECTOR + offset
    # The build appends the kernel's size to the compressed data.
    payload = bzimage[start : start + length - 4]
    (size,) = struct.unpack_from("<I", bzimage, start + length - 4)
    if not payload.startswith(LZ4_LEGACY_MAGIC):
        raise HostError(
            f"the kernel's payload starts with {payload[:6]!r}, not with lz4 data: "
            "this script knows the cloud kernel of Debian 12"
        )
    done = subprocess.run(
        [root / "usr/bin/lz4", "-dc"],
        input=payload,
        capture_output=True,
        env={"LD_LIBRARY_PATH": str(root / "usr/lib/x86_64-linux-gnu")},
        check=False,
    )
    kernel = done.stdout
    if len(kernel) != size or not kernel.startswith(ELF_MAGIC):
        raise HostError(
            f"unpacking the kernel gave {len(kernel)} bytes that start with {kernel[:4]!r}, "
            f"expected {size} bytes of ELF; lz4 said: {done.stderr.decode().strip()}"
        )
    return kernel


def modules_in_load_order(modules: Path, wanted: list[str]) -> dict[str, bytes]:
    """`wanted` and what they depend on, from `lib/modules/<version>`: name to ELF file.

    A module comes after those it depends on. One that is built into the kernel is left out.
    """
    paths = {module_name(path.name): path for path in modules.rglob("*.ko")}
    builtin_list = (modules / "modules.builtin").read_text().splitlines()
    builtin = {module_name(Path(line).name) for line in builtin_list}
    ordered: dict[str, bytes] = {}

    def add(name: str, wanted_by: str) -> None:
        if name in ordered or name in builtin:
            return
        if name not in paths:
            raise HostError(f"the kernel package has no module {name!r}, needed by {wanted_by}")
        elf = paths[name].read_bytes()
        for dependency in dependencies(elf):
            add(dependency, wanted_by=name)
        ordered[name] = elf

    for name in wanted:
        add(module_name(name), wanted_by="the test host")
    return ordered


def module_name(file_name: str) -> str:
    """`kvm-amd.ko` and `kvm_amd` are the same module: `kvm_amd`."""
    return file_name.split(".")[0].replace("-", "_")


def dependencies(elf: bytes) -> list[str]:
    """The names in the `depends=` line of a module's .modinfo."""
    line = re.search(rb"\0depends=([^\0]*)\0", elf)
    names = line.group(1).decode() if line else ""
    return [module_name(name) for name in names.split(",") if name]
