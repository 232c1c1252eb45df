"""What every test shares: a home of its own, a limit on hanging, and word of what was skipped."""

from __future__ import annotations

import faulthandler
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from cpufw.framework import Framework

SECONDS_LIMIT = 240  # for one test; the slowest takes a tenth of it

_HOME = pytest.StashKey[Path]()
_STDERR = pytest.StashKey[int]()


def _kvm_problem() -> str | None:
    """Why /dev/kvm cannot be used, None if it can."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/kvm does not open: {error.strerror}"
    return None


def _ordinary_kvm_problem() -> str | None:
    """Why guests do not see exactly the CPUID that was set, None if they do."""
    problem = _kvm_problem()
    if problem is not None:
        return problem
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags") and {"vmx", "svm"} & set(line.split()):
            return None
    return "this host's KVM runs without VMX and SVM (no such flag in /proc/cpuinfo)"


# A busy machine is no bug: what hangs is stopped by the limit above.
settings.register_profile("cpufw", deadline=None)
settings.load_profile("cpufw")


def pytest_configure(config: pytest.Config) -> None:
    # Before anything of cpufw is imported: tests must not see or touch the user's files.
    home = Path(tempfile.mkdtemp(prefix="cpufw-tests-"))
    for name, folder in (("XDG_CACHE_HOME", "cache"), ("XDG_CONFIG_HOME", "config")):
        (home / folder).mkdir()
        os.environ[name] = str(home / folder)
    os.environ.pop("CPUFW_CPUDEFS", None)
    config.stash[_HOME] = home
    # A copy, because output is captured by the time that a test hangs.
    config.stash[_STDERR] = os.dup(sys.__stderr__.fileno()) if sys.__stderr__ else 2


def pytest_unconfigure(config: pytest.Config) -> None:
    home = config.stash.get(_HOME, None)
    if home is not None:
        shutil.rmtree(home, ignore_errors=True)


@pytest.hookimpl(trylast=True)  # after -k and -m have chosen
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    problems = {"kvm": _kvm_problem(), "ordinary_kvm": _ordinary_kvm_problem()}
    for item in items:
        # Not item.keywords: a folder called kvm is in there too.
        reasons = [
            reason for name, reason in problems.items() if reason and item.get_closest_marker(name)
        ]
        if reasons:
            item.add_marker(pytest.mark.skip(reason=reasons[0]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    stderr = item.config.stash[_STDERR]
    faulthandler.dump_traceback_later(SECONDS_LIMIT, exit=True, file=stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    problems = {_kvm_problem(), _ordinary_kvm_problem()}
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):  # of all of xdist's workers
        _, _, said = report.longrepr
        reasons[said.removeprefix("Skipped: ")] += 1
    for reason, count in reasons.items():
        if reason not in problems:
            continue
        tests = "test was" if count == 1 else "tests were"
        terminalreporter.write_line(f"{count} KVM {tests} skipped: {reason}", yellow=True)


@pytest.fixture(scope="session")
def framework() -> Framework:
    """cpufw with its built-in plugins and nothing of the user's."""
    from cpufw.framework import Framework

    return Framework()
