"""How Arm CPUs compare: fields of ID registers, by the Arm ARM's principles of the ID scheme.

- CPUs of another implementer, part or architecture version cannot stand in for one another: what
  the ID registers do not say (errata, timing, implementation defined registers) is told apart by
  MIDR, and guests act on it. Variant and revision ask nothing of a host.
- Of one part, `a` covers `b` if it covers it in each field of each register of `registers`; fields
  that both lack are zero.
- Caches, reset values, addresses and clocks are the machine's to give and ask nothing of a host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cpufw.core.algebra import Relation
from cpufw.errors import ModelError
from cpufw_arm.fields import Field, Order, layout

_REGISTERS = "registers"
_MUST_AGREE = ("isa", "midr")
_PART = 0xFF00FFF0  # MIDR's Implementer and PartNum (Arm ARM DDI 0487, MIDR_EL1)


class ArmRules:
    """The rules above, as `cpufw.core.algebra.ModelRules`."""

    def compare_identity(
        self, a: Mapping[str, Any], b: Mapping[str, Any]
    ) -> tuple[Relation, tuple[str, ...]]:
        """How `a` stands to `b`, and the names of values and fields that differ."""
        contradicting = _contradictions([a, b])
        if contradicting:
            return Relation.INCOMPATIBLE, contradicting
        relation, names = Relation.IDENTICAL, []
        mine, theirs = a.get(_REGISTERS, {}), b.get(_REGISTERS, {})
        for field, one, other in _differing_fields(mine, theirs):
            relation &= _compare(field, one, other)
            names.append(field.name)
        quiet = tuple(n for n in sorted({*a, *b} - {_REGISTERS}) if a.get(n) != b.get(n))
        if not names and mine != theirs:  # a register given as zero in one, not at all in the other
            quiet = (*quiet, _REGISTERS)
        return relation, (*names, *quiet)

    def common_identity(self, identities: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The values of the richest CPU that each of these covers. Raises `ModelError`."""
        first = identities[0]
        contradicting = _contradictions(identities)
        if contradicting:
            values = {name: {_shown(name, each) for each in identities} for name in contradicting}
            words = (f"{name} is {' and '.join(sorted(values[name]))}" for name in contradicting)
            raise ModelError(
                f"Arm CPUs of different parts have no CPU in common: {', '.join(words)}"
            )
        common = {
            name: min((each[name] for each in identities if name in each), key=_rank)
            for name in sorted({name for each in identities for name in each})
            if name != _REGISTERS and all(name in each for each in identities)
        }
        registers = dict(first.get(_REGISTERS, {}))
        for each in identities[1:]:
            registers = _common_registers(registers, each.get(_REGISTERS, {}))
        return {**common, _REGISTERS: registers}


def _contradictions(identities: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Which of the values that must agree do not, MIDR in its implementer and part."""
    return tuple(
        name for name in _MUST_AGREE if len({_agreeing(name, each) for each in identities}) > 1
    )


def _agreeing(name: str, identity: Mapping[str, Any]) -> Any:
    value = identity.get(name)
    return value & _PART if name == "midr" and value is not None else value


def _shown(name: str, identity: Mapping[str, Any]) -> str:
    value = identity.get(name)
    return f"{value:#010x}" if isinstance(value, int) else str(value)


def _differing_fields(
    a: Mapping[str, int], b: Mapping[str, int]
) -> Iterable[tuple[Field, int, int]]:
    for register in sorted({*a, *b}):
        one, other = a.get(register, 0), b.get(register, 0)
        if one != other:
            for field in layout(register):
                if field.get(one) != field.get(other):
                    yield field, field.get(one), field.get(other)


def _compare(field: Field, one: int, other: int) -> Relation:
    """How two different values of a field stand to one another."""
    if field.order is Order.EXACT:
        return Relation.INCOMPATIBLE
    if field.order is Order.MASK:
        if one & other == other:
            return Relation.SUPERSET
        return Relation.SUBSET if one & other == one else Relation.INCOMPATIBLE
    return Relation.SUPERSET if field.demand(one) > field.demand(other) else Relation.SUBSET


def _common_registers(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    common = dict(a)
    for field, one, other in _differing_fields(a, b):
        if field.order is Order.EXACT:
            raise ModelError(
                f"{field.name} is {one} and {other}: no value of it works on both, "
                "so these CPUs have none in common"
            )
        least = one & other if field.order is Order.MASK else min(one, other, key=field.demand)
        common[field.register] = field.put(common.get(field.register, 0), least)
    return common


def _rank(value: Any) -> tuple[str, Any]:
    """A key that orders values of one kind; what holds several is ordered by how it is written."""
    return (type(value).__name__, value if isinstance(value, int | str) else repr(value))
