"""Build the guests that nobody here wrote, for the tests that boot them.

    python tests/guests build     build what is missing, and print the folder
    python tests/guests where     print the folder if everything in it is there

They are Debian's: Linux 6.1 from its source package with the configuration beside this file, the
stock cloud kernel, memtest86+, SeaBIOS, and busybox for a user space. They are downloaded, not
installed; compiling Linux needs gcc, make, flex, bison, bc and libelf's headers.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "svm"))

from cache import cache_folder, cached, key_of  # noqa: E402
from cpio import TRAILER, write_entry  # noqa: E402
from image import dependency_of, update_package_lists  # noqa: E402
from steps import HostError, Steps, command_output, say  # noqa: E402

SOURCE_PACKAGE = "linux-source-6.1"
CLOUD_PACKAGE = "linux-image-cloud-amd64"
SMALL_PACKAGES = ["busybox-static", "memtest86+", "seabios"]
INIT_FLAGS = [
    *("-O2", "-static", "-nostdlib", "-ffreestanding", "-no-pie", "-fno-stack-protector"),
    "-mgeneral-regs-only",
]


def package_lines(names: list[str]) -> list[str]:
    """File name, size and checksum of each package apt would download now."""

    def look_up() -> list[str]:
        uris = command_output(
            ["apt-get", "download", "-q", "--print-uris", *names], f"looking up {' '.join(names)}"
        )
        return sorted(line.split(maxsplit=1)[1] for line in uris.splitlines())

    try:
        return look_up()
    except HostError:
        update_package_lists()
        return look_up()


def unpack(names: list[str], root: Path) -> None:
    """Download packages and unpack them into the folder `root`."""
    with tempfile.TemporaryDirectory(prefix="guests-") as work:
        command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *names]
        command_output(command, f"downloading {' '.join(names)}", cwd=Path(work))
        for package in sorted(Path(work).glob("*.deb")):
            command_output(["dpkg-deb", "-x", package, root], f"unpacking {package.name}")


def build_linux(folder: Path) -> None:
    """`vmlinux` (stripped) and `bzImage` from Debian's source package."""
    for tool in ("gcc", "make", "flex", "bison", "bc"):
        if shutil.which(tool) is None:
            raise HostError(f"compiling Linux needs {tool}, which is not installed")
    with tempfile.TemporaryDirectory(prefix="guests-") as work:
        root = Path(work)
        say(f"downloading {SOURCE_PACKAGE}")
        unpack([SOURCE_PACKAGE], root)
        (archive,) = (root / "usr/src").glob("linux-source-*.tar.xz")
        command_output(["tar", "xf", archive, "-C", root], "unpacking Linux's source")
        (source,) = root.glob("linux-source-*")
        run = ["make", "-s", "-C", source]
        command_output([*run, "tinyconfig"], "configuring Linux")
        merge = ["scripts/kconfig/merge_config.sh", "-m", ".config", HERE / "linux.config"]
        command_output(merge, "configuring Linux", cwd=source)
        command_output([*run, "olddefconfig"], "configuring Linux")
        check_configuration((source / ".config").read_text())
        say("compiling Linux, which takes some minutes")
        jobs = f"-j{len(os.sched_getaffinity(0))}"
        # The time and the place of a build are in it otherwise.
        fixed = {"KBUILD_BUILD_TIMESTAMP": "2024-01-01", "KBUILD_BUILD_USER": "cpufw"}
        environment = {**os.environ, **fixed, "KBUILD_BUILD_HOST": "tests"}
        command_output(
            [*run, jobs, "vmlinux", "bzImage"], "compiling Linux", environment=environment
        )
        command_output(["strip", "-o", folder / "vmlinux", source / "vmlinux"], "stripping Linux")
        shutil.copyfile(source / "arch/x86/boot/bzImage", folder / "bzImage")


def check_configuration(text: str) -> None:
    """Raise HostError for a line of linux.config that the kernel's rules did not take."""
    have = dict(line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_"))
    for line in (HERE / "linux.config").read_text().splitlines():
        if line.startswith("CONFIG_"):
            name, value = line.split("=", 1)
            if have.get(name, "n") != value:
                raise HostError(f"linux.config: {line}, but it came out as {have.get(name, 'n')}")


def build_all(folder: Path, linux: Path) -> None:
    """All guests in one folder."""
    for name in ("vmlinux", "bzImage"):
        shutil.copyfile(linux / name, folder / name)
    with tempfile.TemporaryDirectory(prefix="guests-") as work:
        root = Path(work)
        unpack([*SMALL_PACKAGES, dependency_of(CLOUD_PACKAGE, "linux-image-")], root)
        (cloud,) = (root / "boot").glob("vmlinuz-*")
        shutil.copyfile(cloud, folder / "cloud-bzImage")
        shutil.copyfile(root / "boot/memtest86+x64.bin", folder / "memtest.bin")
        shutil.copyfile(root / "usr/share/seabios/bios-256k.bin", folder / "seabios.bin")
        init = root / "init"
        command_output(["gcc", *INIT_FLAGS, "-o", init, HERE / "init.c"], "compiling init.c")
        busybox = (root / "bin/busybox").read_bytes()
        script = (HERE / "busybox-init.sh").read_bytes()
        write_initramfs(folder / "init.cpio", {"init": init.read_bytes()})
        write_initramfs(folder / "busybox.cpio", {"init": script, "bin/busybox": busybox})


def write_initramfs(archive: Path, files: dict[str, bytes]) -> None:
    """An initramfs of executable files, with a folder and a device for the first console."""
    with archive.open("wb") as stream:
        folders = sorted({"dev", *(str(Path(name).parent) for name in files)} - {"."})
        for number, name in enumerate(folders, start=1):
            write_entry(stream, number, name, 0o40755, 0, b"")
        for number, (name, data) in enumerate(files.items(), start=len(folders) + 1):
            write_entry(stream, number, name, 0o100755, 0, data)
        write_entry(stream, 0, TRAILER, 0, 0, b"")


def locate(build: bool) -> Path | None:
    """The folder with all guests; None if it is not built and shall not be."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise HostError("the guests are Debian 12's: apt-get is needed")
    recipe = [path.read_bytes() for path in sorted(HERE.glob("*")) if path.is_file()]
    config = (HERE / "linux.config").read_bytes()
    linux_key = key_of([*package_lines([SOURCE_PACKAGE]), config])
    others = [*SMALL_PACKAGES, dependency_of(CLOUD_PACKAGE, "linux-image-")]
    key = key_of([linux_key, *package_lines(others), *recipe])
    if not build:
        folder = cache_folder() / f"guests-{key}"
        return folder if folder.is_dir() else None
    steps = Steps()
    with steps.timed("linux"):
        linux = cached("linux", linux_key, build_linux)
    with steps.timed("guests"):
        folder = cached("guests", key, lambda beside: build_all(beside, linux))
    say(steps.summary())
    return folder


def main() -> int:
    """Do what the one argument says."""
    if sys.argv[1:] not in (["build"], ["where"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        folder = locate(build=sys.argv[1] == "build")
    except HostError as error:
        print(f"guests: {error}", file=sys.stderr)
        return 1
    if folder is None:
        print("guests: not built: make guests", file=sys.stderr)
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
