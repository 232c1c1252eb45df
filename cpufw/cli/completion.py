"""`cpufw completion`: a script that completes the command line in a shell."""

from __future__ import annotations

from cpufw.command import Command

TYPE_CHECKING = False  # importing argparse would cost start-up time
if TYPE_CHECKING:
    from argparse import Action, ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell to complete in")


def run(options: Namespace) -> int:
    """Print the script: `source <(cpufw completion bash)`."""
    import shtab

    from cpufw.cli.parser import build_parser

    preamble = _MODELS.get(options.shell, "")
    print(shtab.complete(build_parser(), options.shell, preamble=preamble))
    return 0


# Model names come from the index as it is when Tab is pressed.
_MODELS = {
    "bash": '_cpufw_models() { compgen -W "$(cpufw list-models --format names)" -- "$1"; }\n',
    "zsh": "_cpufw_models() { compadd $(cpufw list-models --format names); }\n",
}


def completes_models(action: Action) -> None:
    """Let the shell complete the argument `action` with the names of models."""
    action.complete = dict.fromkeys(_MODELS, "_cpufw_models")  # type: ignore[attr-defined]


def completes_files(action: Action) -> None:
    """Let the shell complete the argument `action` with the names of files."""
    # shtab.FILE, without the cost of importing shtab at every start.
    action.complete = {  # type: ignore[attr-defined]
        "bash": "_shtab_compgen_files",
        "zsh": "_files",
        "tcsh": "f",
    }


COMMAND = Command("completion", "print a shell completion script", configure, run)
