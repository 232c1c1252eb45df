"""Features to feature words and back: `avx2` is bit 5 of the word `7.0.EBX`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from cpufw.core.features import FeatureSet, FeatureTable, bits
from cpufw.errors import DefinitionError

Words = dict[str, int]


class FeatureWords:
    """The places of one feature table, both ways round."""

    def __init__(self, table: FeatureTable) -> None:
        self.table = table
        self._places: list[list[tuple[str, int]]] = []
        self._owners: dict[str, list[tuple[int, int]]] = {}
        for index, feature in enumerate(table):
            places = [_place(feature.name, place) for place in feature.places]
            self._places.append(places)
            # A feature of several bits counts as there when its first one is.
            word, mask = places[0]
            self._owners.setdefault(word, []).append((mask, 1 << index))
        self._decode = lru_cache(maxsize=32)(self._decode_pairs)  # CPUs of a machine agree

    def encode(self, features: FeatureSet) -> Words:
        """The words in which exactly these features are set; words that are zero are absent."""
        words: Words = {}
        for index in bits(features.mask):
            for word, mask in self._places[index]:
                words[word] = words.get(word, 0) | mask
        return words

    def decode(self, words: Mapping[str, int]) -> FeatureSet:
        """The features whose bit is set in `words`; bits that no feature owns are ignored."""
        return self._decode(tuple(words.items()))

    def _decode_pairs(self, words: tuple[tuple[str, int], ...]) -> FeatureSet:
        found = 0
        for word, value in words:
            for mask, feature in self._owners.get(word, ()):
                if value & mask:
                    found |= feature
        return FeatureSet(self.table, found)


@lru_cache(maxsize=8)
def feature_words(table: FeatureTable) -> FeatureWords:
    """The places of `table`, made once."""
    return FeatureWords(table)


def _place(name: str, text: str) -> tuple[str, int]:
    word, _, bit = text.rpartition(":")
    if not word or not bit.isdigit() or int(bit) > 63:
        raise DefinitionError([f"feature {name}: '{text}' is not a place like 7.0.EBX:5"])
    return word, 1 << int(bit)
