"""What a format is, and what comes of writing and reading one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUClass, CPUState
    from cpufw.core.model import Catalogue, CPURequest


@dataclass(frozen=True)
class Exported:
    """A CPU in another's words.

    `lost` are the values that the format cannot express, each `name=value` with a feature's value
    `on` or `off`; empty where `text` says everything.
    """

    text: str
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Imported:
    """A CPU read from another's words.

    `notes` are sentences about what the text says and the request cannot.
    """

    request: CPURequest
    notes: tuple[str, ...] = ()


class Models(Protocol):
    """Where a format looks up models: a `cpufw.framework.Framework`."""

    def catalogue(self, arch: str) -> Catalogue:
        """The models of an architecture."""

    def find_model(self, name: str, arch: str | None = None) -> CPUClass:
        """The CPU type of the model `name`. Raises `NotFoundError`."""


class Codec(Protocol):
    """Writes and reads one format for the CPUs of one architecture."""

    def recognises(self, text: str) -> bool:
        """Whether `text` looks like this format; quick, and no promise that it can be read."""

    def write(self, cpu: CPUState, models: Models) -> Exported:
        """`cpu`, which is not realized, in this format. Raises `ModelError` if nothing of it fits.

        The CPU is taken as it is without a machine and an accelerator.
        """

    def read(self, text: str, models: Models) -> Imported:
        """The CPU that `text` describes.

        Raises `FormatError` for malformed text, `NotFoundError` for a model that nobody knows,
        `ModelError` or `PropertyError` for one that cannot be.
        """


@dataclass(frozen=True)
class Format:
    """A format by name; `arch` None is for every architecture.

    `codec` makes what writes and reads it for the architecture of that name; it is called when the
    format is used, so that naming formats imports nothing.
    """

    name: str
    description: str
    codec: Callable[[str], Codec]
    arch: str | None = None
