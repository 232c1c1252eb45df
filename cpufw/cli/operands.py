"""CPUs and hosts as a command line names them: `--cpu` strings, `host`, files of captures."""

from __future__ import annotations

from cpufw.errors import CpufwError, ModelError

TYPE_CHECKING = False  # importing typing or argparse would cost start-up time
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence

    from cpufw.core.algebra import Operand
    from cpufw.core.capture import HostCapture
    from cpufw.core.model_algebra import ModelAlgebra
    from cpufw.framework import Framework

WHAT = "a model, also with properties, `host` for this host, or the file of a captured host"


def add_arch(parser: ArgumentParser) -> None:
    """Add `--arch`."""
    parser.add_argument("--arch", metavar="ARCH", help="the architecture, if several have it")


def add_format(parser: ArgumentParser) -> None:
    """Add `--format`."""
    parser.add_argument(
        "--format", choices=("table", "json"), default="table", help="default: table"
    )


def is_file(text: str) -> bool:
    """Whether an argument is the path of a captured host, and not a model."""
    return "/" in text or text.endswith((".yaml", ".yml"))


def common_arch(
    framework: Framework, texts: Sequence[str], captures: Sequence[HostCapture], arch: str | None
) -> str:
    """The one architecture of these models and captured hosts. Raises `CpufwError`."""
    for capture in captures:
        if capture.arch != (arch := arch or capture.arch):
            raise ModelError(
                f"{capture.name} is a host of architecture {capture.arch}, expected one of {arch}"
            )
    names = [text.partition(",")[0] for text in texts]
    candidates = framework.architectures if arch is None else [arch]
    for candidate in candidates:
        if all(name in framework.catalogue(candidate) for name in names):
            return candidate
    owners = {name: framework.find_model(name).arch for name in names}
    if arch is None:
        found = ", ".join(f"{name} ({owner})" for name, owner in owners.items())
        raise ModelError(f"models of different architectures do not compare: {found}")
    name = next(name for name in names if name not in framework.catalogue(arch))
    raise ModelError(f"{name} is a model of architecture {owners[name]}, expected one of {arch}")


def load_captures(framework: Framework, paths: Sequence[str]) -> list[HostCapture]:
    """The captured hosts in these files. Raises `CpufwError` for one that cannot be used.

    Hosts whose files are called alike go by their paths.
    """
    from collections import Counter

    from cpufw.fleet.capture import load_capture

    captures = [load_capture(path, framework) for path in paths]
    names = Counter(capture.name for capture in captures)
    for path, capture in zip(paths, captures, strict=True):
        if names[capture.name] > 1:
            capture.name = path
    return captures


def read_operands(
    framework: Framework, texts: Sequence[str], arch: str | None
) -> tuple[ModelAlgebra, list[Operand]]:
    """What the arguments name, and the algebra of their one architecture. Raises `CpufwError`."""
    paths = [text for text in texts if is_file(text)]
    captures = dict(zip(paths, load_captures(framework, paths) if paths else (), strict=True))
    models = [text for text in texts if text not in captures]
    algebra = framework.algebra(common_arch(framework, models, list(captures.values()), arch))
    return algebra, [
        algebra.host(captures[text]) if text in captures else _model(framework, algebra, text)
        for text in texts
    ]


def _model(framework: Framework, algebra: ModelAlgebra, text: str) -> Operand:
    cpu = algebra.cpu(text)
    if not cpu.model.dynamic:
        return algebra.operand(text)
    if text != cpu.model.name:
        raise CpufwError(f"{text}: properties of '{cpu.model.name}' cannot be given here")
    accelerator = framework.accelerator_of(cpu.model.arch)
    try:
        here = algebra.host(accelerator)
    finally:
        accelerator.close()
    return here._replace(name=text, features=here.features - here.features.table.unmigratable)
