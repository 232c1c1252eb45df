"""What a client is told when a command fails: QMP's error classes."""

from __future__ import annotations

from cpufw.errors import CpufwError


class QmpError(CpufwError):
    """An error of QMP's class `GenericError`; subclasses are the others."""

    error_class = "GenericError"


class CommandNotFoundError(QmpError):
    """There is no such command, or not now."""

    error_class = "CommandNotFound"


class DeviceNotFoundError(QmpError):
    """There is no such device."""

    error_class = "DeviceNotFound"
