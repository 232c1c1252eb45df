"""`python -m benchmarks`: cpufw's speed as ratios to QEMU and to plain C programs, in one run.

It measures and never judges: the exit status is 0 whatever the figures are.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

import cpufw
from benchmarks.algebra import algebra_figures
from benchmarks.commands import CommandTimer, command_figures
from benchmarks.figures import Row, Skipped
from benchmarks.guests import Bench, first_exit, hotplug, port_exits, serial_output
from benchmarks.linux import linux_figures
from benchmarks.monitor import monitor
from benchmarks.report import print_json, print_table
from benchmarks.toolchain import BuildError, build_program, install_cpufw

_GROUPS = (
    "commands",
    "algebra",
    "linux",
    "first-exit",
    "exits",
    "serial-1MB",
    "hotplug",
    "monitor",
)


def main() -> None:
    """Measure what the command line asks for and print it."""
    options = _options()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="cpufw-bench-") as folder:
        rows = list(_measure(options, Path(folder)))
    conditions = {
        "cpufw": cpufw.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "CPUs": os.cpu_count(),
        "load average, before and after": f"{load_before:.2f}, {os.getloadavg()[0]:.2f}",
        "scale": options.scale,
    }
    (print_json if options.format == "json" else print_table)(rows, conditions)


def _options() -> Namespace:
    parser = ArgumentParser("python -m benchmarks", description="Measure cpufw's speed.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(_GROUPS)}")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="X", help="multiply the number of runs"
    )
    parser.add_argument(
        "--python",
        type=Path,
        metavar="PYTHON",
        help="a Python with cpufw installed, to measure commands with (default: build the wheel "
        "and install it in a scratch environment)",
    )
    parser.add_argument(
        "--vmm",
        default="",
        metavar="COMMAND",
        help="a program that boots Linux, too, to compare with: its command line, with {kernel}, "
        "{initrd} and {append}; it must print what its guest prints",
    )
    options = parser.parse_args()
    for group in options.groups:
        if group not in _GROUPS:
            parser.error(f"there is no group '{group}', only {', '.join(_GROUPS)}")
    options.groups = options.groups or _GROUPS
    return options


def _measure(options: Namespace, folder: Path) -> Iterator[Row]:
    if "commands" in options.groups:
        _progress("commands")
        try:
            python = options.python or _installed(folder)
            timer = CommandTimer(build_program("run_command", folder), folder / "cache")
            yield from command_figures(timer, python.absolute(), options.scale)
        except BuildError as error:
            yield Skipped("commands", str(error))
    if "algebra" in options.groups:
        _progress("algebra")
        yield from algebra_figures(options.scale)
    if "linux" in options.groups:
        _progress("linux")
        yield from linux_figures(os.environ.get("CPUFW_GUESTS", ""), options.scale, options.vmm)
    framework = cpufw.Framework()
    try:
        accelerator = framework.open_accelerator("x86_64", "kvm")
    except cpufw.CpufwError as error:
        yield Skipped("guests", str(error))
        return
    bench = Bench(framework, accelerator, folder, options.scale)
    for name, measure in (
        ("first-exit", first_exit),
        ("exits", port_exits),
        ("serial-1MB", serial_output),
        ("hotplug", hotplug),
        ("monitor", monitor),
    ):
        if name in options.groups:
            _progress(name)
            try:
                yield from measure(bench)
            except (BuildError, RuntimeError, TimeoutError) as error:
                yield Skipped(name, str(error))
    accelerator.close()


def _installed(folder: Path) -> Path:
    """A Python with cpufw: this tree's wheel, or else the one that is on the path."""
    try:
        return install_cpufw(folder)
    except BuildError as error:
        print(f"benchmarks: the wheel cannot be installed: {error}", file=sys.stderr)
    beside = Path(sys.executable)
    if not beside.with_name("cpufw").exists():
        raise BuildError("there is no cpufw beside this Python; give one with --python")
    print(f"benchmarks: measuring the commands with {beside}", file=sys.stderr)
    return beside


def _progress(group: str) -> None:
    if sys.stderr.isatty():
        print(f"measuring {group} …", file=sys.stderr)


if __name__ == "__main__":
    main()
