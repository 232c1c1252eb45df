"""What all commands have in common: help, errors, statuses, where output goes."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from command import command, cpufw, environment, on_a_terminal, sentence

from cpufw import __version__
from cpufw.cli import COMMANDS, builtin
from cpufw.cli.parser import command_parser

ESCAPE = "\x1b"


def test_version() -> None:
    done = cpufw("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"cpufw {__version__}\n", "")


def test_help_lists_every_command_with_what_it_does() -> None:
    for arguments in ([], ["--help"], ["-h"]):
        done = cpufw(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        for name in COMMANDS:
            assert re.search(rf"^ +{name}  +\w+ \w+", done.stdout, re.MULTILINE), name


@pytest.mark.parametrize("name", [name for name in COMMANDS if builtin(name).defaults])
def test_a_command_of_operands_alone_means_what_its_parser_makes_of_it(name: str) -> None:
    command = builtin(name)
    words = ["Haswell" for _ in command.operands]
    quick, thorough = command.parsed(words), command_parser(command).parse_args(words)
    expected = {name: value or None for name, value in vars(thorough).items()}
    assert {name: getattr(quick, name) or None for name in expected} == expected
    assert command.parsed([*words, "more"]) is None
    assert command.parsed([*words[1:], "--help"]) is None


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option(name: str) -> None:
    done = cpufw(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    options = done.stdout.split("\nexamples:")[0]
    described = re.split(r"^(?:options|\w[\w ]*):\n", options, flags=re.MULTILINE)[1:]
    for block in described:
        entries = re.split(r"\n(?=  \S)", "\n" + block.split("\n\n")[0])
        for entry in filter(str.strip, entries):
            if entry.startswith("  ") and not entry.startswith("   "):
                assert re.search(r"\S(?:  +|\n +)\S", entry), f"not explained: {entry}"


def test_help_of_run_has_statuses_and_examples_that_parse() -> None:
    shown = cpufw("run", "--help").stdout
    for status in ("0", "1", "2", "3", "124", "130, 143", "(v << 1) | 1"):
        assert re.search(rf"^  {re.escape(status)}  +\w", shown, re.MULTILINE), status
    examples = shown.split("examples:\n")[1].replace("\\\n", " ").strip().splitlines()
    assert len(examples) == 2
    for example in examples:
        words = example.split()
        assert words[0] == "cpufw"
        # All is well but that the image is not there.
        assert "guest image guest." in sentence(cpufw(*words[1:]), 1)


def test_help_fits_the_width_it_is_given() -> None:
    for columns in ("60", "80", "120"):
        shown = cpufw("plugins", "--help", COLUMNS=columns).stdout
        assert max(map(len, shown.splitlines())) <= int(columns)
    assert cpufw("run", "--help", COLUMNS="0").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["list-model"], 2, "did you mean list-models?"),
        (["frobnicate"], 2, "cpufw --help"),
        ([""], 2, "cpufw --help"),
        (["--frobnicate"], 2, "--frobnicate"),
        (["show"], 2, "MODEL"),
        (["show", "Haswell", "Skylake"], 2, "Skylake"),
        (["show", "Haswel"], 1, "did you mean Haswell"),
        (["show", "haswell"], 1, "did you mean Haswell"),
        (["show", "Haswell,+avx3"], 1, "avx3"),
        (["show", "Haswell,family=x"], 1, "family=x"),
        (["show", "Haswell,family=-1"], 1, "family=-1"),
        (["show", ""], 2, "empty"),
        (["show", "Haswell", "--arch", "z80"], 1, "z80"),
        (["show", "host"], 1, "--machine pc"),
        (["show", "Haswell", "--format", "xml"], 2, "yaml"),
        (["cpuid", "Haswell", "--slot", "1"], 1, "0 to 0"),
        (["cpuid", "Haswell", "--slot", "-1"], 1, "0 to 0"),
        (["cpuid", "Haswell", "--slot", "x"], 2, "--slot"),
        (["cpuid", "Haswell", "--smp", "3,maxcpus=2"], 2, "maxcpus (2)"),
        (["cpuid", "max"], 1, "--machine pc"),
        (["list-models", "--arch", "z80"], 1, "z80"),
        (["list-models", "Hasvell"], 1, "did you mean Haswell"),
        (["list-models", "--cpudefs", "/missing"], 1, "/missing"),
        (["show", "Haswell", "--cpudefs", "/missing"], 1, "/missing"),
        (["host", "--arch", "z80"], 1, "z80"),
        (["validate", "/missing"], 1, "/missing"),
        (["completion", "fish"], 2, "bash"),
        (["completion"], 2, "shell"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_request_is_one_sentence(arguments: list[str], status: int, words: str) -> None:
    assert words in sentence(cpufw(*arguments), status)


@pytest.mark.parametrize(
    "arguments", [["--debug", "show", "Haswel"], ["show", "Haswel", "--debug"]]
)
def test_debug_shows_where_an_error_was_raised(arguments: list[str]) -> None:
    done = cpufw(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.splitlines()[-1].startswith("cpufw: CPU model 'Haswel' is not known")


# --- colour, width, progress --------------------------------------------------------------


def test_colour_only_on_a_terminal_and_not_with_no_color() -> None:
    heading = f"{ESCAPE}[1mNAME"
    assert ESCAPE not in cpufw("list-models").stdout
    assert on_a_terminal("list-models").startswith(heading)
    assert on_a_terminal("list-models", NO_COLOR="").startswith(heading)  # empty: not set
    assert ESCAPE not in on_a_terminal("list-models", NO_COLOR="1")


def test_tables_fit_the_terminal_and_are_whole_in_a_pipe() -> None:
    narrow = on_a_terminal("list-models", "EPYC", columns=90, NO_COLOR="1").splitlines()
    whole = cpufw("list-models", "EPYC").stdout.splitlines()
    assert max(map(len, narrow)) <= 90
    assert [line.split()[0] for line in narrow] == [line.split()[0] for line in whole]
    assert not any("…" in line for line in whole)
    assert max(map(len, whole)) > 90


def test_no_progress_in_a_pipe(tmp_path: os.PathLike[str]) -> None:
    done = cpufw("show", "Haswell", XDG_CACHE_HOME=str(tmp_path))  # nothing is cached there
    assert (done.returncode, done.stderr) == (0, "")
    assert ESCAPE not in done.stdout


# --- output that cannot be written --------------------------------------------------------

PRINTING = [
    ["--help"],
    ["--version"],
    ["run", "--help"],
    ["list-models"],
    ["list-models", "--format", "json"],
    ["show", "Haswell"],
    ["show", "Haswell", "--format", "json"],
    ["cpuid", "Haswell"],
    ["cpuid", "Haswell", "--format", "raw"],
    ["plugins"],
    ["completion", "bash"],
]


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(each, "") for each in PRINTING] + [(each, "1") for each in PRINTING[:4]],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value or "0",
)
def test_output_that_cannot_be_written(arguments: list[str], unbuffered: str) -> None:
    surroundings = environment(PYTHONUNBUFFERED=unbuffered)
    for redirection, complaint in (
        (">/dev/full", "standard output: No space left on device"),
        (">&-", "standard output: Bad file descriptor"),
    ):
        done = subprocess.run(
            ["sh", "-c", f'"$@" {redirection}', "sh", *command(*arguments)],
            capture_output=True,
            text=True,
            env=surroundings,
            timeout=100,
            check=False,
        )
        assert sentence(done, 1) == complaint
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=surroundings
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read().decode()
    assert process.returncode == 141
    assert complaint == "cpufw: standard output was closed before everything was written\n"


def test_errors_do_not_go_to_standard_output_when_standard_error_is_closed() -> None:
    for redirection in ("2>&-", "2>/dev/full", "<&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f'"$@" {redirection}', "sh", *command("show", "Haswel")],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
