"""Which SVE and SME vector lengths a CPU has, from those of its model and a user's wishes.

Lengths are in bits. Hardware with an SVE length has every power of two below it (Arm ARM DDI 0487,
ZCR_ELx.LEN); SME's lengths are independent of one another.
"""

from __future__ import annotations

from collections.abc import Set

from cpufw.errors import ModelError

QUADWORD = 128  # the unit of lengths, and the shortest


def sve_lengths(
    model: str, known: Set[int], on: Set[int], off: Set[int], limit: int | None = None
) -> set[int]:
    """The SVE lengths of a CPU with SVE.

    `known` are the model's, `on` and `off` those the user turned on and off, `limit` the longest
    (`sve-max-vq`). As in QEMU, turning on a length brings the powers of two below it and nothing
    else; turning off a power of two takes all that is longer. Raises `ModelError` if that
    contradicts itself.
    """
    if limit is not None:
        longest = limit
        if on and max(on) > limit:
            raise ModelError(
                f"{model}: sve{max(on)}=on is longer than sve-max-vq={limit // QUADWORD} allows "
                f"({limit} bits); drop one of them"
            )
        if limit in off:
            raise ModelError(
                f"{model}: sve{limit}=off takes away the length that "
                f"sve-max-vq={limit // QUADWORD} asks for; drop one of them"
            )
        lengths = {length for length in known if length <= limit}
    elif on:
        longest = max(on)
        lengths = set(on)
    else:
        ends = [length for length in off if _is_power_of_two(length)]
        shorter = [length for length in known if length < min(ends, default=max(known) + 1)]
        if not shorter:
            raise ModelError(
                f"{model}: sve{min(ends)}=off leaves SVE without any vector length; "
                "turn SVE itself off with sve=off"
            )
        longest = max(set(shorter) - off)
        lengths = set(shorter)
    needed = {length for length in known if length <= longest and _is_power_of_two(length)}
    missing = needed & off
    if missing:
        raise ModelError(
            f"{model}: sve{max(missing)}=off contradicts vectors of {longest} bits, which need "
            f"every power of two below; drop it or turn off sve{longest} as well"
        )
    return (lengths | needed) - off


def sme_lengths(model: str, known: Set[int], on: Set[int], off: Set[int]) -> set[int]:
    """The streaming lengths of a CPU with SME: those turned on, else all that are not off.

    Raises `ModelError` if none is left.
    """
    lengths = set(on or known - off)
    if not lengths:
        raise ModelError(
            f"{model}: every sme length is off, which leaves SME without any; "
            "turn SME itself off with sme=off"
        )
    return lengths


def _is_power_of_two(length: int) -> bool:
    return length & length - 1 == 0
