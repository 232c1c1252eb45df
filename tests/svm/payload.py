"""What is brought into the host: the project's wheel and tests, and the packages they need."""

import fnmatch
import importlib.metadata
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from cache import cached, key_of
from cpio import write_cpio
from image import compile_python
from steps import HostError, command_output, say

PROJECT = Path(__file__).resolve().parents[2]
HOST_PYTHON = (3, 11)  # of Debian 12, see packages.txt
SITE_PACKAGES = "usr/local/lib/python3.11/dist-packages"
SCRIPTS = "usr/local/bin"
GUESTS = "/guests"
"""Where the guests nobody here wrote are in the host."""

# Beside the wheel, what tests read. The folder `cpufw` stays out: tests must meet the wheel.
TEST_INPUTS = [
    *("pyproject.toml", "README.md", "tests"),
    *("cpudefs", "plugins", "tools", "docs", "examples"),
]
GENERATED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "*.so", "*.o")
BUILT_AT_THE_TOP = {"build", "dist"}


def host_python() -> Path:
    """A Python here of the version inside: it builds and compiles what runs there."""
    if sys.version_info[:2] == HOST_PYTHON:
        return Path(sys.executable)
    version = ".".join(map(str, HOST_PYTHON))
    found = shutil.which(f"python{version}")
    if found is None:
        raise HostError(
            f"the test host runs Python {version} and this is {sys.version.split()[0]}: install "
            f"python{version} with its headers (Debian: python{version}-dev)"
        )
    return Path(found)


def project_table() -> dict[str, Any]:
    """`[project]` of pyproject.toml."""
    text = (PROJECT / "pyproject.toml").read_text()
    table: dict[str, Any] = tomllib.loads(text)["project"]
    return table


def pytest_plugins() -> list[str]:
    """The pytest plugins in the host, by entry point: hypothesis's and the project's own."""
    own = project_table().get("entry-points", {}).get("pytest11", {})
    return ["hypothesispytest", *own]


def pip(python: Path, *arguments: str | Path) -> list[str | Path]:
    """A pip command that works for `python`, which needs no pip of its own."""
    common = ["--disable-pip-version-check", "--no-input", "-q"]
    return [sys.executable, "-m", "pip", "--python", python, *common, *arguments]


def site_packages(python: Path) -> Path:
    """An archive of the packages the project and its tests need, from the cache or newly installed.

    The versions are those installed here, so that both sides test the same.
    """
    project = project_table()
    requirements = project["dependencies"] + project["optional-dependencies"]["test"]
    constraints = sorted(
        f"{installed.name}=={installed.version}"
        for installed in importlib.metadata.distributions()
        if installed.name != project["name"]
    )

    def install(folder: Path) -> None:
        say("installing the packages that the project and its tests need")
        with tempfile.TemporaryDirectory(prefix="svm-host-") as temporary:
            root, constraint_file = Path(temporary) / "root", Path(temporary) / "constraints.txt"
            constraint_file.write_text("\n".join(constraints))
            chosen = ["--constraint", constraint_file, *requirements]
            pip_install(python, root, "installing the test packages", *chosen)
            write_cpio(root, folder / "site.cpio")

    key = key_of([Path(__file__).read_bytes(), str(python), *requirements, "with", *constraints])
    return cached("site", key, install) / "site.cpio"


def pip_install(python: Path, root: Path, purpose: str, *arguments: str | Path) -> None:
    """Install into the root file system `root` where Debian's Python looks, compiled."""
    site = root / SITE_PACKAGES
    command_output(pip(python, "install", "--no-compile", "--target", site, *arguments), purpose)
    if (site / "bin").is_dir():
        (root / SCRIPTS).mkdir(parents=True)
        for script in (site / "bin").iterdir():
            # pip names the Python that installs; inside there is only this one.
            body = script.read_bytes().split(b"\n", 1)[1]
            (root / SCRIPTS / script.name).write_bytes(b"#!/usr/bin/python3\n" + body)
            (root / SCRIPTS / script.name).chmod(0o755)
        shutil.rmtree(site / "bin")
    compile_python(python, root, site)


def build_wheel(python: Path, folder: Path) -> Path:
    """The project's wheel in `folder`, from a clean copy of the tree.

    setuptools would put what an earlier build left in the tree's `build` into the wheel.
    """

    def not_source(where: str, names: list[str]) -> set[str]:
        return GENERATED(where, names) | (BUILT_AT_THE_TOP if Path(where) == PROJECT else set())

    source = folder / "source"
    shutil.copytree(PROJECT, source, ignore=not_source)
    command_output(
        pip(python, "wheel", "--no-deps", "--wheel-dir", folder, source), "building the wheel"
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def not_for_the_host(where: str, names: list[str]) -> set[str]:
    """Generated files, and test modules that never say "kvm".

    No test of such a module would run, but importing them all under TCG takes most of a minute.
    """
    without_kvm = {
        name
        for name in names
        if fnmatch.fnmatch(name, "test_*.py") and b"kvm" not in Path(where, name).read_bytes()
    }
    return GENERATED(where, names) | without_kvm


def kvm_test_modules() -> list[Path]:
    """The test modules that speak of kvm, relative to the project, largest first."""
    modules = [path for path in (PROJECT / "tests").rglob("test_*.py") if "kvm" in path.read_text()]
    modules.sort(key=lambda path: path.stat().st_size, reverse=True)
    return [path.relative_to(PROJECT) for path in modules]


def built_guests() -> Path | None:
    """The folder that `make guests` built, if it did."""
    found = subprocess.run(
        [sys.executable, PROJECT / "tests/guests", "where"], capture_output=True, text=True
    )
    return Path(found.stdout.strip()) if found.returncode == 0 else None


def pack_start(command: list[str], archive: Path) -> None:
    """An archive with /project/start, which runs `command`."""
    with tempfile.TemporaryDirectory(prefix="svm-host-") as temporary:
        project = Path(temporary) / "project"
        project.mkdir()
        (project / "start").write_text(shlex.join(command) + "\n")
        write_cpio(Path(temporary), archive)


def pack_project(python: Path, wheel: Path, archive: Path) -> None:
    """An archive with the wheel, installed, and the tests in /project."""
    with tempfile.TemporaryDirectory(prefix="svm-host-") as temporary:
        root = Path(temporary)
        pip_install(python, root, "unpacking the wheel", "--no-deps", wheel)
        project = root / "project"
        project.mkdir()
        for name in TEST_INPUTS:
            path = PROJECT / name
            if path.is_dir():
                shutil.copytree(path, project / name, ignore=not_for_the_host)
            elif path.is_file():
                shutil.copyfile(path, project / name)
        compiler = project / "tests/x86/guest_compiler.py"  # the host has no gcc
        command_output([sys.executable, compiler], "compiling the guests of tests/x86")
        guests = built_guests()
        if guests is not None:
            shutil.copytree(guests, root / GUESTS.lstrip("/"))
        write_cpio(root, archive)
