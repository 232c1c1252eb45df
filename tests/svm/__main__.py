"""Run the `kvm`-marked tests on an ordinary AMD-V host, on any machine.

    python tests/svm run [-- PYTEST-ARGUMENT ...]
    python tests/svm shell
    python tests/svm prepare

The host is a Debian kernel and Python in QEMU TCG, which emulates AMD-V: kvm_amd with its
defaults and nested paging on. The project comes into it as its wheel, with its tests.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

from boot import Ending, Inputs, boot_until_it_ends, interactive, qemu_command
from cache import cache_folder
from image import prepare
from payload import (
    GUESTS,
    build_wheel,
    built_guests,
    host_python,
    kvm_test_modules,
    pack_project,
    pack_start,
    pytest_plugins,
    site_packages,
)
from steps import HostError, Steps, say

NO_TESTS_RAN = 5  # pytest's exit status for it
CANNOT_RUN = 125  # none of pytest's

SHARDS, AT_ONCE = 8, 2

# A hung test is named by its traceback before the time limit ends everything.
FAULTHANDLER_SECONDS = 120


def pytest_command(arguments: list[str]) -> list[str]:
    """Pytest for the `kvm`-marked tests; later arguments win, so `-m` can be given again.

    Plugins are named one by one: when pytest finds them itself, it also rewrites the asserts of
    everything in their distributions, and for hypothesis alone that takes 10 s under TCG.
    """
    plugins = [word for name in pytest_plugins() for word in ("-p", name)]
    width = shutil.get_terminal_size().columns
    colour = "yes" if sys.stdout.isatty() else "no"
    return [
        *("env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", f"COLUMNS={width}"),
        *([f"CPUFW_GUESTS={GUESTS}"] if built_guests() is not None else []),
        *("python3", "-m", "pytest", "-m", "kvm or ordinary_kvm", "-q", *plugins),
        *("-p", "no:cacheprovider", "-o", f"faulthandler_timeout={FAULTHANDLER_SECONDS}"),
        *(f"--color={colour}", "--junitxml=/results/junit.xml", *arguments),
    ]


def gather(steps: Steps, work: Path) -> Path:
    """An initramfs with everything but what to start, built or from the cache."""
    python = host_python()
    with steps.timed("image"):
        image = prepare(python)
    with steps.timed("site-packages"):
        site = site_packages(python)
    with steps.timed("wheel"):
        wheel = build_wheel(python, work)
    with steps.timed("pack"):
        project, common = work / "project.cpio", work / "common.cpio"
        pack_project(python, wheel, project)
        with common.open("wb") as joined:
            for archive in (image / "base.cpio", site, project):
                joined.write(archive.read_bytes())
        shutil.copyfile(image / "vmlinux", work / "vmlinux")
    return common


def inputs_for(command: list[str], common: Path, work: Path, memory: int) -> Inputs:
    """What one boot needs to run `command`."""
    start, initrd = work / "start.cpio", work / "initrd.cpio"
    pack_start(command, start)
    initrd.write_bytes(common.read_bytes() + start.read_bytes())
    return Inputs(common.parent / "vmlinux", initrd, memory)


def shards(arguments: list[str]) -> list[list[str]]:
    """The pytest arguments of each boot: `arguments` alone, or every module dealt out.

    Short boots lose little when a host hangs, and `AT_ONCE` of them run beside one another.
    """
    if arguments:
        return [arguments]
    hands: list[list[str]] = [[] for _ in range(SHARDS)]
    for number, module in enumerate(kvm_test_modules()):
        turn, place = divmod(number, SHARDS)
        hands[place if turn % 2 == 0 else -1 - place].append(str(module))
    return [hand for hand in hands if hand]


def run(options: argparse.Namespace, work: Path) -> int:
    """Run the tests: pytest's exit status, the first that is not 0."""
    steps = Steps()
    results = cache_folder() / "results"
    shutil.rmtree(results, ignore_errors=True)  # a run that fails must not show an older report
    results.mkdir(parents=True)
    common = gather(steps, work)
    hands = shards(options.pytest_arguments)

    def one(number: int) -> Ending:
        folder = work / f"shard-{number}"
        folder.mkdir()
        inputs = inputs_for(pytest_command(hands[number]), common, folder, options.memory)
        console = sys.stdout.buffer if len(hands) == 1 else BytesIO()
        try:
            return boot_until_it_ends(inputs, folder, options.timeout, console)
        finally:
            if isinstance(console, BytesIO):
                sys.stdout.buffer.write(console.getvalue())
                sys.stdout.buffer.flush()
            shutil.rmtree(folder)

    with steps.timed("hosts"), ThreadPoolExecutor(AT_ONCE) as pool:
        endings = list(pool.map(one, range(len(hands))))
    for number, ending in enumerate(endings):
        for name, content in ending.results.items():
            (results / f"{number}-{name}").write_bytes(content)
        for reason in ending.earlier:
            say(f"shard {number} was booted again: {reason}")
    say(steps.summary())
    return verdict(endings, results)


def verdict(endings: list[Ending], results: Path) -> int:
    """Say how many tests ran, and turn a run of none into a failure."""
    suites = []
    status = 0
    for ending in endings:
        report = ending.results.get("junit.xml")
        if report is None:
            raise HostError(f"pytest ended with status {ending.status} and wrote no report")
        suites += list(ElementTree.fromstring(report).iter("testsuite"))
        if ending.status != NO_TESTS_RAN:  # a module may have only tests for other hosts
            status = status or ending.status or 0

    def total(kind: str) -> int:
        return sum(int(suite.get(kind, "0")) for suite in suites)

    skipped, failed = total("skipped"), total("failures") + total("errors")
    ran = total("tests") - skipped
    say(f"the reports are in {results}")
    say(f"{ran} tests ran in the AMD-V host: {failed} failed; {skipped} skipped; status {status}")
    return NO_TESTS_RAN if ran == 0 and status == 0 else status


def shell(options: argparse.Namespace, work: Path) -> int:
    """A prompt inside, with the project installed; Ctrl-A X ends QEMU."""
    say("Ctrl-A X leaves; the tests are in /project")
    common = gather(Steps(), work)
    inputs = inputs_for(["setsid", "cttyhack", "sh"], common, work, options.memory)
    return interactive(qemu_command(inputs, "mon:stdio"))


def main() -> int:
    """Read the command line, do it, and print what failed."""
    parser = argparse.ArgumentParser(prog="python tests/svm", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", help="build what is cached, and stop")
    for name, what in (("run", "run the tests"), ("shell", "a prompt inside")):
        command = commands.add_parser(name, help=what)
        command.add_argument("--memory", type=int, default=2048, metavar="MIB")
        if name == "run":
            command.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
            command.add_argument("pytest_arguments", nargs="*", metavar="PYTEST-ARGUMENT")
    options = parser.parse_args()
    # End as on Ctrl-C, so that QEMU ends too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(CANNOT_RUN))
    try:
        with tempfile.TemporaryDirectory(prefix="svm-host-") as work:
            if options.command == "run":
                return run(options, Path(work))
            if options.command == "shell":
                return shell(options, Path(work))
            python = host_python()
            say(f"image: {prepare(python)}")
            say(f"site-packages: {site_packages(python)}")
            return 0
    except HostError as error:
        say(f"error: {error}")
        return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main())
