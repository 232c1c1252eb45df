"""`cpufw verify`: what was asked of the accelerator against what it granted."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from cpufw.cli.completion import completes_models
from cpufw.cli.output import print_json
from cpufw.cli.session import open_framework
from cpufw.command import Command

if TYPE_CHECKING:
    from cpufw.fleet.verify import Verification, WordDifference

DIFFERS = 1
"""Exit status when the guest has not exactly what was asked for."""


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    completes_models(
        parser.add_argument(
            "model", metavar="MODEL", help="a model, also with properties: Haswell,+pcid,-avx"
        )
    )
    parser.add_argument("--arch", metavar="ARCH", help="the architecture, if several have it")
    parser.add_argument(
        "--machine", "-M", default="pc", metavar="TYPE", help="the machine type (default: pc)"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.epilog = "exit status: 0 the guest has exactly what was asked for, 1 it has not"


def run(options: Namespace) -> int:
    """Realize one CPU and print how what it got differs from what it asked for."""
    from cpufw.fleet.facts import verification_facts
    from cpufw.fleet.verify import verify

    framework = open_framework(options)
    found = verify(framework, options.model, options.machine, options.arch)
    if options.format == "json":
        print_json(verification_facts(found))
    else:
        _print_text(found)
    return 0 if found.same else DIFFERS


def _print_text(found: Verification) -> None:
    print(
        f"{found.cpu} on {found.accelerator}: {len(found.requested)} features requested, "
        f"{len(found.granted)} granted, {len(found.unavailable)} not granted, "
        f"{len(found.extra)} added"
    )
    if found.seen:
        wrong = sum(each.seen not in (None, each.granted) for each in found.words)
        words = f"{len(found.seen)} registers"
        print(
            f"a guest reads otherwise in {wrong} of {words}"
            if wrong
            else f"a guest reads what was granted, in {words}"
        )
    else:
        print("no guest told what it reads")
    for difference in found.words:
        print()
        print("\n".join(_bit_diff(difference)))


def _bit_diff(each: WordDifference) -> list[str]:
    changed = each.requested ^ each.granted
    marks = "".join("^" if changed >> bit & 1 else " " for bit in reversed(range(each.width)))
    lines = [
        f"{each.word}",
        f"  requested  {_grouped(f'{each.requested:0{each.width}b}')}  {each.requested:#x}",
        f"  granted    {_grouped(f'{each.granted:0{each.width}b}')}  {each.granted:#x}",
        f"             {_grouped(marks)}".rstrip(),
    ]
    if each.seen not in (None, each.granted):
        lines.append(
            f"  a guest    {_grouped(f'{each.seen:0{each.width}b}')}  {each.seen:#x}",
        )
    for word, names in (("missing", each.missing), ("added", each.added)):
        if names:
            lines.append(f"  {word:<9}  {', '.join(names)}")
    return lines


def _grouped(digits: str) -> str:
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


COMMAND = Command("verify", "show how what KVM grants differs from the model", configure, run)
