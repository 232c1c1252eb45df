"""Commands of cpufw's own: what stands between a model and a guest."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from cpufw.monitor.command import command
from cpufw.monitor.errors import QmpError
from cpufw.monitor.monitor import Monitor

MissingFeature = TypedDict(
    "MissingFeature",
    {
        "feature": str,
        "places": list[str],
        "required-by": list[str],
        "lacking-on": list[str],
        "unknown-on": list[str],
    },
)
Explanation = TypedDict(
    "Explanation",
    {
        "model": str,
        "hosts": list[str],
        "runs": bool,
        "sentence": str,
        "missing": list[MissingFeature],
        "demands": Any,
        "differs": Any,
        "reduced": NotRequired[str],
        "as-is": NotRequired[str],
        "gains": Any,
    },
)


class WordDifference(TypedDict):
    word: str
    requested: int
    granted: int
    missing: list[str]
    added: list[str]


class Verification(TypedDict):
    cpu: str
    accelerator: str
    same: bool
    requested: list[str]
    granted: list[str]
    unavailable: list[str]
    extra: list[str]
    words: list[WordDifference]


class Capture(TypedDict):
    arch: str
    capture: str


@command("x-cpufw-explain", blocks=True)
def explain(monitor: Monitor, model: str, on: list[str] | None = None) -> Explanation:
    """Whether a model runs on this host, or on captured ones, and if not why and what does.

    `model` may have properties, as in `--cpu`; `on` are files of captured hosts.
    """
    from cpufw.fleet.capture import load_capture
    from cpufw.fleet.explain import explain
    from cpufw.fleet.facts import explanation_facts

    machine = monitor.machine
    algebra = monitor.framework.algebra(machine.cpu_class.arch)
    if on:
        found = explain(algebra, model, [load_capture(path, monitor.framework) for path in on])
    elif machine.accelerator is not None:
        found = explain(algebra, model, [machine.accelerator])
    else:
        raise QmpError("This machine has no accelerator to explain for; name captures in 'on'")
    facts = explanation_facts(found)
    return {name: value for name, value in facts.items() if value is not None}  # type: ignore[return-value]


@command("x-cpufw-verify", blocks=True)
def verify(monitor: Monitor, cpu_index: int = 0) -> Verification:
    """What a CPU of the guest asked for and what the accelerator granted it, by register."""
    from cpufw.fleet.facts import verification_facts
    from cpufw.fleet.verify import verify_realized

    slots = monitor.machine.slots
    with monitor.machine.board.held():
        cpu = slots[cpu_index].cpu if 0 <= cpu_index < len(slots) else None
        if cpu is None:
            raise QmpError("Parameter 'cpu-index' expects a CPU number")
        facts = verification_facts(verify_realized(cpu))
    for word in facts["words"]:
        del word["seen"]  # no guest was asked
    return facts  # type: ignore[return-value]


@command("x-cpufw-capture", blocks=True)
def capture(monitor: Monitor) -> Capture:
    """This host as data: the text of a file that `on` of x-cpufw-explain reads."""
    from cpufw.fleet.capture import capture_host
    from cpufw.fleet.capture_file import dump

    arch = monitor.machine.cpu_class.arch
    table = monitor.framework.catalogue(arch).table
    return {"arch": arch, "capture": dump(capture_host(monitor.framework, arch), table)}
