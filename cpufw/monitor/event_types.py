"""The events that clients get, and the types of their data."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from cpufw.monitor.schema import Variants

ShutdownCause = Literal[
    "none", "host-error", "host-qmp-quit", "host-qmp-system-reset", "host-signal", "host-ui",
    "guest-shutdown", "guest-reset", "guest-panic", "subsystem-reset", "snapshot-load",
]  # fmt: skip
GuestPanicAction = Literal["pause", "poweroff", "run"]
GuestPanicInformationType = Literal["hyper-v", "s390"]
S390CrashReason = Literal["unknown", "disabled-wait", "extint-loop", "pgmint-loop", "opint-loop"]
ACPISlotType = Literal["DIMM", "CPU"]


class ShutdownInfo(TypedDict):
    """Of SHUTDOWN and RESET: whether the guest asked for it, and why it happens."""

    guest: bool
    reason: ShutdownCause


class DeviceInfo(TypedDict):
    """A device and its object; `device` is the id that the user gave."""

    device: NotRequired[str]
    path: str


ACPIOSTInfo = TypedDict(
    "ACPIOSTInfo",
    {
        "device": NotRequired[str],
        "slot": str,
        "slot-type": ACPISlotType,
        "source": int,
        "status": int,
    },
)


class OstInfo(TypedDict):
    """Of ACPI_DEVICE_OST."""

    info: ACPIOSTInfo


class HyperVPanic(TypedDict):
    """The parameters of Hyper-V's crash registers."""

    arg1: int
    arg2: int
    arg3: int
    arg4: int
    arg5: int


S390Panic = TypedDict(
    "S390Panic", {"core": int, "psw-mask": int, "psw-addr": int, "reason": S390CrashReason}
)


class PanicInformationBase(TypedDict):
    """What a guest said of its panic."""

    type: GuestPanicInformationType


GuestPanicInformation = Annotated[
    PanicInformationBase, Variants("type", {"hyper-v": HyperVPanic, "s390": S390Panic})
]


class PanicInfo(TypedDict):
    """Of GUEST_PANICKED."""

    action: GuestPanicAction
    info: NotRequired[GuestPanicInformation]


MigrationStatus = Literal[
    "none", "setup", "cancelling", "cancelled", "active", "postcopy-active", "postcopy-paused",
    "postcopy-recover-setup", "postcopy-recover", "completed", "failed", "colo",
    "pre-switchover", "device", "wait-unplug",
]  # fmt: skip


class MigrationEventInfo(TypedDict):
    """Of MIGRATION."""

    status: MigrationStatus


EVENTS: dict[str, Any] = {
    "SHUTDOWN": ShutdownInfo,
    "POWERDOWN": None,
    "RESET": ShutdownInfo,
    "STOP": None,
    "RESUME": None,
    "GUEST_PANICKED": PanicInfo,
    "DEVICE_DELETED": DeviceInfo,
    "DEVICE_UNPLUG_GUEST_ERROR": DeviceInfo,
    "ACPI_DEVICE_OST": OstInfo,
    "MIGRATION": MigrationEventInfo,
}
"""The type of each event's data; None for an event that has none."""
