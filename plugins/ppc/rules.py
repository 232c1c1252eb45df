"""How PowerPC identities compare: by level where there are compatibility modes, else by PVR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpufw.core.algebra import Relation
from cpufw.errors import ModelError
from cpufw_ppc.compat import COMPAT_MODES
from cpufw_ppc.pvr import pvr_mask

Identity = Mapping[str, Any]

_ORDER = list(COMPAT_MODES)


class PPCRules:
    """When a host that runs one PowerPC CPU can run another.

    A processor with compatibility modes runs what was made for any mode it has: its own level is
    its newest mode, or the `compat-mode` it was given. So POWER9 is a superset of POWER8, and
    POWER9 in mode power8 asks the same of a host as POWER8 does; their PVRs still differ. That
    power7+ is a mode of POWER7 alone makes it incomparable to power8.

    A processor without modes is known by its PVR alone: of one version, the higher revision is the
    superset; another version is incompatible, as is another kind of address translation.
    """

    def compare_identity(self, a: Identity, b: Identity) -> tuple[Relation, tuple[str, ...]]:
        """How `a` stands to `b`, and which of mmu, pvr and compat-mode differ."""
        names = tuple(n for n in ("mmu", "pvr", "compat-mode") if a.get(n) != b.get(n))
        if "mmu" in names:
            return Relation.INCOMPATIBLE, names
        above, below = _covers(a, b), _covers(b, a)
        if above and below:
            return Relation.IDENTICAL, names
        if above:
            return Relation.SUPERSET, names
        return Relation.SUBSET if below else Relation.INCOMPATIBLE, names

    def common_identity(self, identities: Sequence[Identity]) -> Identity:
        """The lowest of the identities if it is below all, else one in a mode that all have.

        Raises `ModelError` naming what contradicts.
        """
        ranked = sorted(identities, key=lambda each: (each["pvr"], each.get("compat-mode") or ""))
        for each in ranked:
            if all(_covers(other, each) for other in identities) and _one_mmu(identities):
                return each
        shared = set.intersection(*(set(_reach(each)) for each in identities))
        if not shared or not _one_mmu(identities):
            what = "mmu" if not _one_mmu(identities) else "pvr"
            values = sorted({_text(each[what]) for each in identities})
            raise ModelError(f"the CPUs contradict one another in {what}: {', '.join(values)}")
        mode = max(shared, key=_ORDER.index)
        return {**ranked[0], "compat-mode": mode}


def _one_mmu(identities: Sequence[Identity]) -> bool:
    return len({each.get("mmu") for each in identities}) == 1


def _text(value: Any) -> str:
    return f"{value:#010x}" if isinstance(value, int) else str(value)


def _covers(a: Identity, b: Identity) -> bool:
    """Whether wherever `a` can run `b` can."""
    level = _level(b)
    if level is not None:
        return level in _reach(a)
    if _level(a) is not None:
        return False
    mask = pvr_mask(a)
    same_version = mask == pvr_mask(b) and not (a["pvr"] ^ b["pvr"]) & mask
    return a["pvr"] == b["pvr"] or (same_version and a["pvr"] > b["pvr"])


def _level(identity: Identity) -> str | None:
    """The mode that a host must have to run this CPU; None for one without modes."""
    own = [name for name in identity.get("compat-modes", ()) if not COMPAT_MODES[name].variant]
    return identity.get("compat-mode") or (own[-1] if own else None)


def _reach(identity: Identity) -> Sequence[str]:
    """The modes of every host that can run this CPU."""
    modes: Sequence[str] = identity.get("compat-modes", ())
    level = _level(identity)
    return modes[: modes.index(level) + 1] if level in modes else ()
