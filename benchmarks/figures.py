"""One figure of the benchmark: what was measured on both sides, and what was aimed at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Target:
    """A limit: at most `most`, or at least `least`, of the ratio or else of cpufw's own value."""

    most: float | None = None
    least: float | None = None
    of_ratio: bool = True

    def met_by(self, value: float, ratio: float | None) -> bool | None:
        """Whether it is met; None where there is no limit or nothing to compare with."""
        measured = ratio if self.of_ratio else value
        if measured is None or self == NO_TARGET:
            return None
        return not (
            (self.most is not None and measured > self.most)
            or (self.least is not None and measured < self.least)
        )


NO_TARGET = Target()
"""For a figure that is only shown."""


@dataclass(frozen=True)
class Figure:
    """A row of the table. `value` and `reference_value` are in `unit`.

    `reference` names what the second one is of; None: there is no reference, or it is not here.
    """

    what: str
    unit: str
    value: float
    target: Target
    samples: int
    reference: str = ""
    reference_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """The value of cpufw in units of the reference's."""
        return self.value / self.reference_value if self.reference_value else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or no reference."""
        return self.target.met_by(self.value, self.ratio)


@dataclass(frozen=True)
class Skipped:
    """A figure that could not be measured here, and why."""

    what: str
    reason: str


Row = Figure | Skipped


def percentile(samples: Sequence[float], percent: int) -> float:
    """The value that `percent` of the samples do not exceed."""
    if percent == 50:
        return median(samples)
    return quantiles(samples, n=100, method="inclusive")[percent - 1]


def milliseconds(nanoseconds: float) -> float:
    """Nanoseconds as milliseconds."""
    return nanoseconds / 1e6
