"""A finding's evidence as a page shows it: matched fields, observed against expected, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monitor.web.formats import SECOND, span

MOST_FACTS = 40
MOST_STEPS = 50


@dataclass(frozen=True)
class Comparison:
    """One measured quantity beside what was expected of it."""

    name: str
    observed: Any
    expected: Any


@dataclass(frozen=True)
class Evidence:
    """``matched`` maps a field to the value that fired the rule; ``steps`` are the events that
    a correlation counted; ``facts`` is everything else; ``latest`` is the evidence of the
    latest finding of the same story, where there were several.
    """

    matched: Mapping[str, Any]
    comparisons: tuple[Comparison, ...]
    steps: tuple[Mapping[str, Any], ...]
    facts: Mapping[str, Any]
    latest: Evidence | None = None
    latest_reason: str = ""


def read_evidence(evidence: Mapping[str, Any]) -> Evidence:
    """Sort a finding's plain JSON into what a page shows apart."""
    rest = dict(evidence)
    latest = rest.pop("latest", None)
    matched = rest.pop("matched", {})
    comparisons = [*_counted(rest), *_compared(rest)]
    steps = rest.get("events")
    listed = isinstance(steps, list) and all(isinstance(s, Mapping) and "event_type" in s for s in steps)
    if listed:
        del rest["events"]
    reason = str(latest.pop("reason", "")) if isinstance(latest, dict) else ""
    return Evidence(
        matched if isinstance(matched, Mapping) else {},
        tuple(comparisons),
        tuple(steps[:MOST_STEPS]) if listed and steps else (),
        dict(list(rest.items())[:MOST_FACTS]),
        read_evidence(latest) if isinstance(latest, Mapping) else None,
        reason,
    )


def _counted(rest: dict[str, Any]) -> list[Comparison]:
    """A correlation's count beside its threshold, and how long it took beside its window."""
    if "count" not in rest or "threshold" not in rest:
        return []
    pairs = [Comparison("events", rest.pop("count"), f"fewer than {rest.pop('threshold')}")]
    if "took_s" in rest and "timespan_s" in rest:
        window = span(int(rest.pop("timespan_s") * SECOND))
        pairs.append(Comparison("within", span(int(rest.pop("took_s") * SECOND)), f"a window of {window}"))
    return pairs


def _compared(rest: dict[str, Any]) -> list[Comparison]:
    observed, expected = rest.pop("observed", None), rest.pop("expected", None)
    if observed is None and expected is None:
        return []
    if not isinstance(observed, Mapping) and not isinstance(expected, Mapping):
        return [Comparison(str(rest.pop("measure", "")), observed, expected)]
    left = observed if isinstance(observed, Mapping) else {"": observed}
    right = expected if isinstance(expected, Mapping) else {"": expected}
    return [Comparison(str(name), left.get(name), right.get(name)) for name in dict.fromkeys([*left, *right])]
