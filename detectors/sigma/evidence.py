"""From verdicts to findings that explain themselves: what matched, how much, when, in which words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import polars as pl

from detectors.base import MAX_EVENT_IDS, Finding, stable_id
from detectors.sigma.frame import Matches
from detectors.sigma.rule import MICROSECONDS, Correlation, Rule
from detectors.sigma.search import compiled, either, text_pattern
from detectors.sigma.tree import Leaf, Regex, Text, asserted, describe
from detectors.sigma.windows import Hit

MAX_VALUE = 500
MAX_QUOTE = 120
MAX_CONDITIONS = 20

IDENTITIES = ("provisional", "declared", "bound")
"""How sure it is that an event comes from the agent it names, weakest first."""

ALWAYS = (
    *("event_id", "event_type", "timestamp", "tenant", "environment", "agent_id", "identity"),
    *("session_id", "tool_name", "replayed", "repeat_of"),
)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """A rule holds at a row. ``base`` is the rule whose condition the row's event met;
    ``hits`` are the events of a correlation in time order.
    """

    rule: Rule
    base: Rule
    row: int
    hits: tuple[Hit, ...] = ()
    group: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """A verdict is no better founded than the least sure of its events."""
        return weakest(hit.identity for hit in self.hits)

    @property
    def event_ids(self) -> tuple[str, ...]:
        """The events of a correlation, in time order, each once."""
        return tuple(dict.fromkeys(one for hit in self.hits for one in hit.of or (hit.event_id,)))


def findings(verdicts: Sequence[Verdict], frame: pl.DataFrame, matches: Matches) -> list[Finding]:
    """One finding for each verdict, in the same order."""
    if not verdicts:
        return []
    rows = sorted({verdict.row for verdict in verdicts})
    bases = {verdict.base.id: verdict.base for verdict in verdicts}
    leaves = {name: tuple(dict.fromkeys(_asserted(base))) for name, base in bases.items()}
    named = {leaf.column.name for held in leaves.values() for leaf in held}
    wanted = [*ALWAYS, *sorted(named.difference(ALWAYS))]
    picked = frame.select(wanted)[rows]
    columns = [_plain(column) for column in picked.get_columns()]
    values = {
        row: dict(zip(wanted, told, strict=True))
        for row, told in zip(rows, zip(*columns, strict=True), strict=True)
    }
    return [
        _finding(
            verdict,
            values[verdict.row],
            [leaf for leaf in leaves[verdict.base.id] if matches.holds(leaf, verdict.row)],
        )
        for verdict in verdicts
    ]


def _plain(column: pl.Series) -> list[Any]:
    """The values; times as microseconds."""
    return (column.to_physical() if column.dtype.is_temporal() else column).to_list()


def _asserted(base: Rule) -> Iterable[Leaf]:
    return asserted(base.tree) if base.tree is not None else ()


def _finding(verdict: Verdict, row: Row, held: Sequence[Leaf]) -> Finding:
    rule, hits = verdict.rule, verdict.hits
    tenant = row["tenant"] or "default"
    ids = verdict.event_ids or (row["event_id"],)
    who = list(verdict.group.values()) if hits else [row["agent_id"]]
    # Live ids stay what they were before replays had ids of their own.
    lane = ["replayed"] if row["replayed"] else []
    # What two reports of one call both show is one finding.
    first = ids[0] if hits else row["repeat_of"] or ids[0]
    return Finding(
        finding_id=stable_id("f", rule.id, tenant, who, first, *lane),
        detector="sigma",
        rule_id=rule.id,
        rule_version=rule.version,
        title=rule.title,
        reason=_reason(verdict, row, _matched(held, row, MAX_QUOTE)),
        level=rule.level,
        tenant=tenant,
        agent_id=row["agent_id"],
        timestamp=row["timestamp"],
        event_ids=ends(ids),
        event_count=len(ids),
        identity=weakest([row["identity"] or "declared", *(hit.identity for hit in hits)]),
        environment=row["environment"],
        session_id=row["session_id"],
        group=dict(verdict.group) or {"agent_id": row["agent_id"], "session_id": row["session_id"]},
        evidence={
            "matched": _matched(held, row, MAX_VALUE),
            "conditions": [
                clean(describe(narrowed(leaf, row[leaf.column.name])), MAX_VALUE)
                for leaf in held[:MAX_CONDITIONS]
            ],
            **_related(verdict),
        },
        tags=rule.tags,
        replayed=bool(row["replayed"]),
        row=verdict.row,
    )


def weakest(identities: Iterable[str]) -> str:
    """A finding is no better founded than the least sure of its events."""
    return min(identities, key=IDENTITIES.index)


def ends(items: Sequence[Any]) -> tuple[Any, ...]:
    """At most ``MAX_EVENT_IDS`` items: the first half and the last half of what there is."""
    if len(items) <= MAX_EVENT_IDS:
        return tuple(items)
    half = MAX_EVENT_IDS // 2
    return (*items[:half], *items[-half:])


def _matched(held: Sequence[Leaf], row: Row, limit: int) -> dict[str, Any]:
    """The fields that made the event match, each cut around the place that matched."""
    values: dict[str, Any] = {}
    for leaf in held:
        value = row[leaf.column.name]
        if isinstance(value, list):
            value = [excerpt(item, leaf, limit) for item in value[:20] if item is not None]
        elif isinstance(value, str):
            value = excerpt(value, leaf, limit)
        if value is not None:
            values[leaf.column.name] = value
    return values


def excerpt(value: str, leaf: Leaf, limit: int) -> str:
    """At most ``limit`` characters of the value, around the place that the leaf found."""
    if len(value) <= limit:
        return value
    first = compiled(either(_expressions(leaf))).search(value) if _expressions(leaf) else None
    before = first.start() if first else 0
    start = max(0, min(before - limit // 4, len(value) - limit + 2))
    end = start + limit - 2
    return f"{'…' if start else ''}{value[start:end]}{'…' if end < len(value) else ''}"


def _expressions(leaf: Leaf) -> list[str]:
    """The leaf's patterns, each as a regular expression; none for leaves that search no text."""
    if isinstance(leaf, Regex):
        return [*leaf.patterns]
    if isinstance(leaf, Text):
        return [("" if leaf.cased else "(?i)") + text_pattern((parts,)) for parts in leaf.patterns]
    return []


def narrowed(leaf: Leaf, value: Any) -> Leaf:
    """The leaf with only those of its patterns that matched, so that the analyst sees which."""
    if not isinstance(leaf, Text | Regex) or len(leaf.patterns) == 1:
        return leaf
    texts = [text for text in (value if isinstance(value, list) else [value]) if text is not None]
    found = [compiled(pattern) for pattern in _expressions(leaf)]
    matched = [any(one.search(text) for text in texts) for one in found]
    if isinstance(leaf, Regex):
        return Regex(leaf.column, tuple(compress(leaf.patterns, matched)))
    return Text(leaf.column, tuple(compress(leaf.patterns, matched)), leaf.cased)


def _related(verdict: Verdict) -> dict[str, Any]:
    spec = verdict.rule.correlation
    if spec is not None:
        return {
            "count": len(verdict.hits),
            "threshold": spec.threshold,
            "timespan_s": spec.span // MICROSECONDS,
            "took_s": round((verdict.hits[-1].timestamp - verdict.hits[0].timestamp) / MICROSECONDS, 3),
            "events": [
                {
                    "event_id": hit.event_id,
                    "event_type": hit.event_type,
                    "tool_name": hit.tool_name,
                    "timestamp": hit.timestamp,
                }
                for hit in ends(verdict.hits)
            ],
        }
    if verdict.rule.absences:
        return {
            "not_preceded_by": [
                {
                    "rule": absence.reference.rule,
                    "timespan_s": absence.span // MICROSECONDS,
                    "group_by": list(absence.group_by),
                }
                for absence in verdict.rule.absences
            ]
        }
    return {}


def _reason(verdict: Verdict, row: Row, matched: Mapping[str, Any]) -> str:
    spec = verdict.rule.correlation
    if spec is not None:
        return _story(verdict, spec, row)
    if verdict.rule.absences:
        longest = max(absence.span for absence in verdict.rule.absences)
        absent = f"without a matching approval event in the {duration(longest)} before it"
        return f"{_act(row)} {absent}{_why(matched)}"
    return f"{_act(row)}{_why(matched)}"


def _story(verdict: Verdict, spec: Correlation, row: Row) -> str:
    first, last = verdict.hits[0], verdict.hits[-1]
    took, limit = duration(last.timestamp - first.timestamp), duration(spec.span)
    where = ", ".join(f"{name} {clean(str(value), 80)}" for name, value in verdict.group.items())
    where = f" in {where}" if where else ""
    if spec.kind in ("event_count", "value_count"):
        counted = f" different {spec.value_field} in" if spec.value_field else " ×"
        return (
            f"{len(verdict.hits)}{counted} {verdict.base.title} in {took}{where} "
            f"(limit {spec.threshold} in {limit}), the last by {clean(row['agent_id'], 80)}: {_step(last)}"
        )
    steps = f" then {took} later ".join((_step(first), _step(last)))
    return f"{clean(row['agent_id'], 80)}: {steps}{where} (within {limit})"


def _step(hit: Hit) -> str:
    return f"{hit.event_type} {clean(hit.tool_name, 80)}" if hit.tool_name else hit.event_type


def _act(row: Row) -> str:
    tool = f" {clean(row['tool_name'], 80)}" if row["tool_name"] else ""
    session = f" in session {clean(row['session_id'], 80)}" if row["session_id"] else ""
    return f"{clean(row['agent_id'], 80)}: {row['event_type']}{tool}{session}"


def _why(matched: Mapping[str, Any]) -> str:
    told = ("event_type", "tool_name", "agent_id", "session_id")
    facts = [
        f"{name} “{clean(str(value), MAX_QUOTE)}”" for name, value in matched.items() if name not in told
    ]
    return f", {' and '.join(facts[:3])}" if facts else ""


def clean(text: str, limit: int) -> str:
    """One line of printable characters, at most ``limit`` of them: agents write these texts."""
    text = text[: limit * 2]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def duration(microseconds: int) -> str:
    """Rounded for reading: ``42 s``, ``10 min``, ``2.5 h``, ``3 d``."""
    seconds = microseconds / MICROSECONDS
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
