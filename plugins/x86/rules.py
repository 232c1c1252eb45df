"""How the identities of x86 CPUs compare: what a host must give, and what is only a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpufw.core.algebra import Relation
from cpufw.errors import ModelError
from cpufw_x86.configuration import EXACT

# A guest that knows more address bits, or a later AVX10, runs on no host with less.
_ORDERED = ("phys-bits", "avx10-version")
# Who the CPU says it is, and how far its CPUID goes: any host can show any of these.
_SIGNATURE = ("family", "model", "stepping", "model-id")
_LEVELS = ("level", "xlevel", "xlevel2")
_LEAST = tuple(f"min-{name}" for name in _LEVELS)
_KNOWN = ("vendor", *_ORDERED, *_SIGNATURE, *_LEVELS, *_LEAST)

Identity = Mapping[str, Any]


class X86Rules:
    """The vendor must be one, address bits and the AVX10 version are ordered, the rest are names.

    A value that is missing, 0 or empty asks for nothing: the model `base` has no vendor and is a
    subset of every CPU.
    """

    def compare_identity(self, a: Identity, b: Identity) -> tuple[Relation, tuple[str, ...]]:
        """How `a` stands to `b`, and the values that differ, the most significant first."""
        if a == b:
            return Relation.IDENTICAL, ()
        names = [name for name in _KNOWN if (a.get(name) or None) != (b.get(name) or None)]
        others = {name for name in (*a, *b) if name not in _KNOWN and a.get(name) != b.get(name)}
        relation = Relation.IDENTICAL
        for name in names:
            ours, theirs = a.get(name), b.get(name)
            if name == "vendor" and ours and theirs:
                relation = Relation.INCOMPATIBLE
            elif name == "vendor" or name in _ORDERED:
                more = bool(ours) if name == "vendor" else (ours or 0) > (theirs or 0)
                relation &= Relation.SUPERSET if more else Relation.SUBSET
        return relation, (*names, *sorted(others))

    def common_identity(self, identities: Sequence[Identity]) -> Identity:
        """The shared vendor, the lowest signature as one CPU has it, the lowest of the rest.

        Values of other kinds stay where all agree. Raises `ModelError` for two vendors.
        """
        vendors = sorted({str(each["vendor"]) for each in identities if each.get("vendor")})
        if len(vendors) > 1:
            raise ModelError(
                f"CPUs of different vendors have no baseline: vendor is {' and '.join(vendors)}"
            )
        lowest = min(identities, key=_signature)
        found: dict[str, Any] = {name: lowest.get(name) for name in _SIGNATURE}
        if all(each.get("vendor") for each in identities):
            found = {"vendor": vendors[0], **found}
        for name in _ORDERED:
            found[name] = min(each.get(name) or 0 for each in identities)
        for name, least in zip(_LEVELS, _LEAST, strict=True):
            exact = {each.get(name) or 0 for each in identities}
            if len(exact) == 1 and all(exact):
                found[name] = exact.pop()
            else:
                found[least] = min(each.get(name) or each.get(least) or 0 for each in identities)
        first = identities[0]
        agreed = {
            name: value
            for name, value in first.items()
            if name not in _KNOWN
            and all(name in each and each[name] == value for each in identities)
        }
        return {name: value for name, value in found.items() if value} | agreed

    def normal_identity(self, identity: Identity) -> Identity:
        """A model's own levels as the least ones, which features raise; only exact ones stay."""
        found = {name: value for name, value in identity.items() if name != EXACT}
        exact = identity.get(EXACT, ())
        for name, least in zip(_LEVELS, _LEAST, strict=True):
            if name in exact:
                found.pop(least, None)
            elif name in found:
                found.setdefault(least, found.pop(name))
        return found


def _signature(identity: Identity) -> tuple[Any, ...]:
    return (*(identity.get(name) or 0 for name in _SIGNATURE[:3]), identity.get("model-id") or "")
