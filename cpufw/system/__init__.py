"""`cpufw-system-x86_64`: cpufw behind QEMU's command line, for libvirt and others who write it."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. `arguments` are the command line without the program's name.

    Returns the exit status: 0 when the guest or a management tool ended it, 1 when it could not
    be started; what is wrong is then on standard error as QEMU would say it.
    """
    from cpufw.system.program import run

    return run(arguments)
