"""What the documents must hold: every hook, every option, links that lead somewhere."""

from __future__ import annotations

import inspect
import re
from argparse import SUPPRESS, ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_blocks import PROJECT, Block, anchors, blocks, documents, headings, links, prose
from doc_sandbox import run_console

from cpufw import hookspecs
from cpufw.cli import COMMANDS
from cpufw.cli.parser import build_parser
from cpufw.framework import Framework

EVERY_PAGE = [*documents(), PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md"]
DEFINITIONS = [
    block
    for path in documents()
    for block in blocks(path)
    if block.language == "yaml" and re.search(r"^kind:", block.text, re.MULTILINE)
]


def test_every_hook_has_a_heading_with_its_exact_signature() -> None:
    signatures = {
        f"{name}{inspect.signature(hook)}".replace("'", "")
        for name, hook in vars(hookspecs).items()
        if name.startswith("cpufw_")
    }
    shown = {
        heading.strip("`")
        for heading in headings(PROJECT / "docs" / "plugins.md")
        if heading.startswith("`cpufw_")
    }
    assert shown == signatures


def subcommands() -> dict[str, ArgumentParser]:
    for action in build_parser()._actions:
        if isinstance(action, _SubParsersAction):
            return {name: action.choices[name] for name in COMMANDS}  # not those of plugins
    raise AssertionError("the command line has no subcommands")


def section(path: Path, heading: str) -> str:
    """The text below a second-level heading."""
    text = path.read_text(encoding="utf-8")
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE
    )
    assert found, f"{path.name} has no heading '## {heading}'"
    return found[1]


@pytest.mark.parametrize("name", subcommands())
def test_every_option_of_every_command_is_documented(name: str) -> None:
    text = section(PROJECT / "docs" / "cli.md", f"`cpufw {name}`")
    for action in subcommands()[name]._actions:
        if action.help == SUPPRESS:
            continue
        names = action.option_strings or [str(action.metavar or action.dest)]
        for each in (*names, *map(str, action.choices or ())):
            assert re.search(rf"(?<![\w-]){re.escape(each)}(?![\w-])", text), f"{name}: {each}"


def test_no_command_is_documented_that_does_not_exist() -> None:
    shown = re.findall(
        r"^## `cpufw ([\w-]+)`$", (PROJECT / "docs/cli.md").read_text(), re.MULTILINE
    )
    assert sorted(shown) == sorted(subcommands())


def wrong_links(path: Path) -> Iterator[str]:
    for number, target in links(path):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists():
            yield f"{path.name}:{number}: {target} does not exist"
        elif anchor and anchor not in anchors(file):
            yield f"{path.name}:{number}: {target} has no such heading"


@pytest.mark.parametrize("path", EVERY_PAGE, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    assert not list(wrong_links(path))


# A word in backquotes with a slash that begins with one of the project's folders.
_PATH = re.compile(r"`((?:cpufw|plugins|cpudefs|tests|tools|docs|benchmarks|\.ci)/[\w./-]*)`")


@pytest.mark.parametrize("path", EVERY_PAGE, ids=lambda path: path.name)
def test_files_that_are_named_exist(path: Path) -> None:
    for number, line in prose(path):
        for name in _PATH.findall(line):
            assert (PROJECT / name).exists(), f"{path.name}:{number}: {name} does not exist"


@pytest.mark.parametrize("block", DEFINITIONS, ids=lambda block: block.id)
def test_definitions_that_are_shown_are_valid(block: Block, tmp_path: Path) -> None:
    assert "file" in block.directives, f"{block.id}: say in which file this definition is"
    shell = Block(block.path, block.line, "console", "$ true\n", {})
    run_console(shell, tmp_path)  # writes the files that the document shows up to this one
    file = tmp_path / block.directives["file"]
    _, problems = Framework().check([definitions_folder(file)])
    mine = [str(problem) for problem in problems if Path(problem.file) == file]
    assert bool(mine) == ("broken" in block.directives), "\n".join(mine)


def definitions_folder(file: Path) -> Path:
    """The folder that `file` belongs to: the one with the features, if there is one above."""
    for folder in file.parents:
        if (folder / "features.yaml").exists():
            return folder
    return file.parent
