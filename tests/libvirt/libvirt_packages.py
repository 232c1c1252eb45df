"""Debian's libvirt packages, unpacked beside the system."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_HERE = Path(__file__).parent
_SUITES = ("bookworm", "bookworm-updates", "bookworm-backports")


class FetchError(Exception):
    """A package manager that is not there, or a package that is gone."""


def _listed() -> dict[str, list[str]]:
    lines = (_HERE / "packages.txt").read_text(encoding="utf-8").splitlines()
    given = [line.split() for line in lines if line and not line.startswith("#")]
    return {version: packages for version, *packages in given}


def versions() -> list[str]:
    """The versions that are tested."""
    return list(_listed())


def folder(version: str) -> Path:
    """Where `version` is, or would be, unpacked."""
    # Not XDG_CACHE_HOME, which tests have of their own.
    return Path(os.environ.get("HOME", "/root"), ".cache", "cpufw", "libvirt", version)


def fetch(version: str) -> Path:
    """Unpack `version` unless it is there; the folder. Raises `FetchError`."""
    target = folder(version)
    if target.is_dir():
        return target
    if shutil.which("apt-get") is None:
        raise FetchError("there is no apt-get on this system")
    work = target.with_name(target.name + ".new")
    shutil.rmtree(work, ignore_errors=True)
    for name in ("lists/partial", "archives/partial", "root"):
        (work / name).mkdir(parents=True)
    sources = work / "sources.list"
    mirror = _mirror()
    sources.write_text("".join(f"deb {mirror} {suite} main\n" for suite in _SUITES), "ascii")
    apt = [
        "apt-get", "-qq", "-o", f"Dir::Etc::sourcelist={sources}",
        "-o", "Dir::Etc::sourceparts=/dev/null", "-o", f"Dir::State::lists={work}/lists",
        "-o", f"Dir::Cache::archives={work}/archives", "-o", "Dir::Cache::pkgcache=",
        "-o", "Dir::Cache::srcpkgcache=", "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    packages = [f"{name}={version}" for name in _listed()[version]]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run(
        [*apt, "-y", "--no-install-recommends", "--download-only", "install", *packages],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for archive in sorted((work / "archives").glob("*.deb")):
        # What libvirt was built against is what it finds; the rest of the system stays as it is.
        if not archive.name.startswith(("systemd", "libpam", "libnss", "udev")):
            subprocess.run(["dpkg-deb", "-x", archive, work / "root"], check=True)
    (work / "root").rename(target)
    shutil.rmtree(work)
    return target


def _mirror() -> str:
    """The Debian mirror that this system uses."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"],
        check=True,
        capture_output=True,
        text=True,
    )
    for line in asked.stdout.splitlines():
        address, _, release = line.partition(" ")
        if release == "bookworm":
            return address
    raise FetchError("this system's package sources do not have Debian 12 (bookworm)")
