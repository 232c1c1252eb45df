"""Named, timed steps, and the one error that says which of them failed."""

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


class HostError(Exception):
    """The test host could not be made or did not come up; one message for the user."""


class Steps:
    """How long each step took, in the order they ended."""

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Announce the step, and note its wall time when it succeeds."""
        say(f"{name} ...")
        start = time.monotonic()
        yield
        self.seconds.append((name, time.monotonic() - start))

    def summary(self) -> str:
        """All steps on one line: `wheel 6.1 s, boot 2.4 s, …`."""
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds)


def say(text: str) -> None:
    """One line of ours, told apart from what the host prints."""
    print(f"svm-host: {text}", flush=True)


def command_output(
    command: Sequence[str | Path],
    purpose: str,
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run `command` and return its standard output.

    Raises HostError with the purpose, the command and the end of what it said.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise HostError(f"{purpose}: the command {words[0]!r} is not installed") from error
    if done.returncode != 0:
        said = "\n".join((done.stderr.strip() or done.stdout).splitlines()[-25:])
        raise HostError(
            f"{purpose} failed: `{' '.join(words)}` ended with {done.returncode}:\n{said}"
        )
    return done.stdout
