"""Feature words that live in MSRs: what an MSR holds beside them.

Of a control MSR of VMX the word is the upper half, which says what controls may be 1; the lower
half says what must be (Intel SDM vol. 3D, A.2). Other VMX MSRs hold sizes and counts beside their
feature bits (A.1, A.6, A.10). What is no feature comes from the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CONTROLS = frozenset({0x48B, 0x48D, 0x48E, 0x48F, 0x490})
"""PROCBASED_CTLS2 and the TRUE_… control MSRs."""
FEATURE_BITS = {
    0x480: 1 << 54 | 1 << 55 | 1 << 56 | 1 << 58,
    0x485: 0x1E0 | 1 << 29 | 1 << 30,
}
"""The feature bits of MSRs that hold other things, too: VMX_BASIC and VMX_MISC."""
VMX = range(0x480, 0x492)

_LOW = 0xFFFFFFFF


def msr_values(words: Mapping[str, int], host: Mapping[int, int]) -> dict[int, int]:
    """What the feature MSRs hold that `words` name; `host` are the feature MSRs KVM supports.

    An MSR of VMX that KVM does not have is left out.
    """
    values = {}
    for index, word in _msr_words(words.items()):
        known = host.get(index)
        if index not in VMX:
            values[index] = word
        elif known is None:
            continue
        elif index in CONTROLS:
            must = known & _LOW
            values[index] = must | (word | must) << 32
        else:
            mask = FEATURE_BITS.get(index, 2**64 - 1)
            values[index] = known & ~mask | word & mask
    return values


def feature_words_of(values: Mapping[int, int]) -> dict[str, int]:
    """The feature words in these MSRs: `{"MSR.10A": 0x6b}`."""
    return {
        f"MSR.{index:X}": value >> 32 if index in CONTROLS else value
        for index, value in values.items()
    }


def _msr_words(words: Iterable[tuple[str, int]]) -> Iterable[tuple[int, int]]:
    for name, value in words:
        if name.startswith("MSR."):
            yield int(name.removeprefix("MSR."), 16), value
