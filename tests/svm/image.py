"""The host's kernel and initramfs, made from Debian packages that are downloaded, not installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from cache import cached, key_of
from cpio import write_cpio
from kernel import modules_in_load_order, uncompressed_kernel
from steps import HostError, command_output, say

HERE = Path(__file__).parent
SOURCES = [HERE / name for name in ("image.py", "kernel.py", "cpio.py", "init.sh", "packages.txt")]

QEMU = "qemu-system-x86_64"
QEMU_PACKAGE = "qemu-system-x86"
MODULES = ["kvm_amd", "virtio_pci", "virtio_blk"]

# Nothing in the host reads these, and the kernel would unpack them at each boot.
UNUSED = ["usr/share", "usr/lib/python3.11/lib2to3", "usr/lib/x86_64-linux-gnu/gconv"]


def prepare(python: Path) -> Path:
    """The folder with `vmlinux` and `base.cpio`, from the cache or newly built.

    `python` is an interpreter of the host's version; it compiles the standard library.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise HostError("the test host is made of Debian 12 packages: apt-get is needed")
    if shutil.which(QEMU) is None:
        install_qemu()
    versions = package_versions()
    key = key_of([versions, *(source.read_bytes() for source in SOURCES)])
    return cached("image", key, lambda folder: build(folder, python))


def install_qemu() -> None:
    """Install QEMU, the only thing that must be installed; needs root."""
    if os.geteuid() != 0:
        raise HostError(f"{QEMU} is not installed: run `apt-get install {QEMU_PACKAGE}` as root")
    update_package_lists()
    say(f"installing {QEMU_PACKAGE}")
    install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", QEMU_PACKAGE]
    command_output(
        install,
        f"installing {QEMU_PACKAGE}",
        environment={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )


def update_package_lists() -> None:
    """`apt-get update`; needs root."""
    if os.geteuid() != 0:
        raise HostError("apt's package lists are missing or old: run `apt-get update` as root")
    say("updating apt's package lists")
    command_output(["apt-get", "update", "-q"], "updating apt's package lists")


def package_names() -> list[str]:
    """The packages of packages.txt, the kernel with its version."""
    names = []
    for line in (HERE / "packages.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, dependency_prefix = (part.strip() for part in line.partition("->"))
        names.append(dependency_of(name, dependency_prefix) if dependency_prefix else name)
    return names


def dependency_of(name: str, prefix: str) -> str:
    """The dependency of package `name` that starts with `prefix`."""
    said = command_output(["apt-cache", "depends", name], f"looking up {name}")
    for line in said.splitlines():
        kind, _, package = line.strip().partition(": ")
        if kind == "Depends" and package.startswith(prefix):
            return package
    raise HostError(f"package {name} depends on no {prefix}*: is this Debian 12 on amd64?")


def package_versions() -> str:
    """File name and checksum of each package apt would download now."""

    def look_up() -> str:
        uris = command_output(
            ["apt-get", "download", "-q", "--print-uris", *package_names()],
            "looking up the packages of packages.txt (Debian 12 has them all)",
        )
        # 'address' file size checksum: the address may change with the mirror.
        return "\n".join(sorted(line.split(maxsplit=1)[1] for line in uris.splitlines()))

    try:
        return look_up()
    except HostError:
        update_package_lists()
        return look_up()


def build(folder: Path, python: Path) -> None:
    """Download, unpack and pack again: fills `folder` with `vmlinux` and `base.cpio`."""
    with tempfile.TemporaryDirectory(prefix="svm-host-") as temporary:
        work = Path(temporary)
        packages = work / "packages"
        packages.mkdir()
        download(packages)
        kernel, root = work / "kernel", work / "root"
        for package in sorted(packages.glob("*.deb")):
            target = kernel if package.name.startswith("linux-image-") else root
            command_output(["dpkg-deb", "-x", package, target], f"unpacking {package.name}")
        (bzimage,) = kernel.glob("boot/vmlinuz-*")
        (folder / "vmlinux").write_bytes(uncompressed_kernel(bzimage.read_bytes(), root))
        (modules,) = kernel.glob("lib/modules/*")
        fill_root(root, modules, python)
        write_cpio(root, folder / "base.cpio")


def download(packages: Path) -> None:
    """All packages into a folder; a list older than the mirror is brought up to date once."""
    # As root, apt would drop to a user that cannot write here.
    command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *package_names()]
    say("downloading Debian packages")
    try:
        command_output(command, "downloading the host's packages", cwd=packages)
    except HostError:
        update_package_lists()
        command_output(command, "downloading the host's packages", cwd=packages)


def fill_root(root: Path, modules: Path, python: Path) -> None:
    """Make the unpacked packages a root file system: modules, compiled library, init."""
    for unused in UNUSED:
        shutil.rmtree(root / unused, ignore_errors=True)
    target = root / "lib/modules"
    target.mkdir(parents=True)
    elves = modules_in_load_order(modules, MODULES)
    for name, elf in elves.items():
        (target / f"{name}.ko").write_bytes(elf)
    load_order = "".join(f"/lib/modules/{name}.ko\n" for name in elves)
    (target / "load-order").write_text(load_order)
    (root / "usr/bin/python3").symlink_to("python3.11")
    compile_python(python, root, root / "usr/lib/python3.11")
    init = root / "init"
    shutil.copyfile(HERE / "init.sh", init)
    init.chmod(0o755)


def compile_python(python: Path, root: Path, folder: Path) -> None:
    """Compile all of `folder`, so that nothing has to be compiled under emulation.

    Unchecked: the files are valid inside whatever happens to their times on the way.
    """
    mode = ["--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/"]
    # The standard library holds a few files that are wrong on purpose; they stay uncompiled.
    subprocess.run([python, "-m", "compileall", "-q", *mode, folder], check=False, text=True)
