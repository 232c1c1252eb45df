"""A counter that an accelerator keeps of a guest, or of one of its vCPUs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Statistic:
    """One counter and its values: one, or those of a histogram's buckets.

    `kind` is `cumulative`, `instant`, `peak`, `linear-histogram` or `log2-histogram`; `unit` is
    `bytes`, `seconds`, `cycles`, `boolean` or empty. A value counts `base ** exponent` units;
    `bucket_size` is that of a linear histogram.
    """

    name: str
    kind: str
    unit: str
    base: int
    exponent: int
    bucket_size: int
    values: tuple[int, ...]
