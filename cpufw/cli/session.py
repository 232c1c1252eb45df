"""The framework as a command needs it: the options' folders, warnings about broken plugins."""

from __future__ import annotations

from cpufw.cli.output import CompileProgress, warn

TYPE_CHECKING = False  # importing typing or argparse would cost start-up time
if TYPE_CHECKING:
    from argparse import Namespace

    from cpufw.framework import Framework


def open_framework(options: Namespace) -> Framework:
    """The framework for these options; tells of broken plugins on standard error."""
    from cpufw.framework import Framework

    with CompileProgress() as report:
        framework = Framework(options.cpudefs, options.strict_plugins, report)
    for plugin in framework.plugins.broken:
        warn(framework.plugins.sentence(plugin))
    return framework
