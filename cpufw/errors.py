"""Every error that cpufw raises on purpose: one tree under `CpufwError`."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing or collections would cost start-up time
if TYPE_CHECKING:
    from collections.abc import Iterable


_FEW = 8  # names that a sentence can list


class CpufwError(Exception):
    """Something a user can understand and act on; the message is one clear sentence."""


class ReasonedError(CpufwError):
    """An error that programs tell by its `reason`, one word; `facts` are what it is about.

    Both are empty where the sentence is all there is to say.
    """

    def __init__(self, message: str, reason: str = "", **facts: object) -> None:
        super().__init__(message)
        self.reason, self.facts = reason, facts


class UsageError(CpufwError):
    """The request itself is malformed: an option's syntax, a wrong combination (exit status 2)."""


class NotFoundError(CpufwError):
    """A name that nothing goes by.

    The message offers the nearest of the `known` names, or all where they are few.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str] = (), hint: str = "") -> None:
        message = f"{kind} '{name}' is not known"
        known = list(known)
        near = nearest(name, known)
        if near:
            message += "; did you mean " + " or ".join(near) + "?"
        elif hint:
            message += f"; {hint}"
        elif 0 < len(known) <= _FEW:
            message += f"; there is {', '.join(sorted(known))}"
        super().__init__(message)
        self.kind, self.name, self.near = kind, name, near


class DefinitionError(CpufwError):
    """Definitions that break a rule; `problems` holds every violation, in file order."""

    def __init__(self, problems: Iterable[object]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PropertyError(ReasonedError):
    """A property that does not exist, has the wrong type, or can no longer be set."""


class ModelError(CpufwError):
    """A CPU model that contradicts itself, for example a feature without what it requires."""


class TopologyError(ReasonedError):
    """A `-smp` description or a slot's ids that do not fit together."""


class HotplugError(ReasonedError):
    """A plug or an unplug that cannot be done; the machine is as it was."""


class AcceleratorError(CpufwError):
    """The accelerator cannot do what was asked."""


class KvmError(AcceleratorError):
    """A KVM ioctl failed.

    `ioctl` is the kernel's name of it, `errno` the number it failed with (0 when none).
    """

    def __init__(self, message: str, ioctl: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.ioctl, self.errno = ioctl, errno


class GuestError(CpufwError):
    """The guest cannot be started, or it died (exit status 3)."""


class ImageError(CpufwError):
    """A guest image that is missing, empty, malformed, or does not fit."""


class FormatError(CpufwError):
    """Text that is not of the format it should be; the message says where and why."""


class StateError(CpufwError):
    """Saved state that cannot be written or read, or that is not this machine's."""


class MigrationInDoubtError(StateError):
    """A guest was handed over and nobody said that it runs there; here it is paused."""


class ChardevError(CpufwError):
    """A file, terminal or socket for a guest's serial port that does not open or fails."""


class PluginError(CpufwError):
    """A plugin that could not be loaded; the message names it, its distribution and why."""


def nearest(name: str, known: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """Up to `limit` of the `known` names that a person who typed `name` may have meant."""
    import difflib  # only ever needed on the way to an error message

    folded: dict[str, str] = {}
    for candidate in known:
        folded.setdefault(candidate.casefold(), candidate)
    close = difflib.get_close_matches(name.casefold(), folded, n=limit, cutoff=0.6)
    return tuple(folded[match] for match in close)
