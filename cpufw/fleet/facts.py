"""Explanations and verifications as plain data, as the CLI's JSON and the monitor show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpufw.fleet.explain import Explanation
    from cpufw.fleet.verify import Verification


def explanation_facts(found: Explanation) -> dict[str, Any]:
    """All that an explanation says."""
    return {
        "model": found.model,
        "hosts": list(found.hosts),
        "runs": found.runs,
        "sentence": found.sentence(),
        "missing": [
            {
                "feature": each.name,
                "places": list(each.places),
                "required-by": list(each.required_by),
                "lacking-on": list(each.hosts),
                "unknown-on": list(each.unknown_on),
            }
            for each in found.missing
        ],
        "demands": {host: list(names) for host, names in found.demands},
        "differs": {host: list(names) for host, names in found.differs},
        "reduced": found.reduced,
        "as-is": found.as_is,
        "gains": {host: list(gain) for host, gain in found.gains},
    }


def verification_facts(found: Verification) -> dict[str, Any]:
    """All that a verification found, but for the words that are as they should be."""
    return {
        "cpu": found.cpu,
        "accelerator": found.accelerator,
        "same": found.same,
        "requested": list(found.requested),
        "granted": list(found.granted),
        "unavailable": list(found.unavailable),
        "extra": list(found.extra),
        "words": [
            {
                "word": each.word,
                "requested": each.requested,
                "granted": each.granted,
                "seen": each.seen,
                "missing": list(each.missing),
                "added": list(each.added),
            }
            for each in found.words
        ],
    }
