"""Correlations against the plain reference: whatever the rules, the stream, its order and its cuts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import event
from tests.detectors.sigma.plain_correlations import Spec, Told, plain_findings
from tests.detectors.sigma.sigma_rules import ID, cut, detection, rules

TOOLS = ("a", "b", "c")
BASES = "".join(
    detection(f"{{tool_args|contains: '<{name}>'}}", number=place, name=name, level="")
    for place, name in enumerate(TOOLS, 1)
)

Stream = list[dict[str, Any]]

COLUMNS = ("event_id", "agent_id", "target", "amount", "tool_name", "reviewer_id")
MEASURED = ("value_sum", "value_avg", "value_median", "value_percentile")


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Events in order of arrival: mostly in time, some together, some late, some beyond all lateness."""
    events: Stream = []
    now = 0
    for number in range(draw(st.integers(3, 28))):
        now += draw(st.sampled_from((0, 0, 1, 7, 20, 41, 300)))
        late = draw(st.sampled_from((0, 0, 0, 0, 5, 30, 61, 200, 590, 700, 1500)))
        events.append(
            {
                "event_id": f"e{number}",
                "at": now - late,
                "tools": tuple(sorted(draw(st.sets(st.sampled_from(TOOLS), min_size=1, max_size=2)))),
                "agent_id": draw(st.sampled_from(("x", "x", "y"))),
                "target": draw(st.sampled_from(("t", "t", "u", None))),
                "amount": draw(st.sampled_from((None, 1.0, 2.0, 5.0, -3.0))),
                "tool_name": draw(st.sampled_from(("p", "q", "r", None))),
                "reviewer_id": draw(st.sampled_from(("x", "t", None))),
            }
        )
    return events


@st.composite
def specs(draw: st.DrawFn, kind: str, name: str = "outer", over: tuple[str, ...] = ()) -> Spec:
    """A correlation of the kind, over base rules or over ``over`` and one base rule."""
    ordered = kind.startswith("temporal")
    names = draw(st.permutations(TOOLS))[: draw(st.integers(2 if ordered else 1, 3))]
    names = (*over, *names[:1]) if over else tuple(names)
    group_by = draw(st.sampled_from((("agent_id",), ("agent_id", "target"), ("target",))))
    aliases: dict[str, dict[str, str]] = {}
    if not over and draw(st.booleans()):
        aliases = {"who": {one: draw(st.sampled_from(("agent_id", "reviewer_id"))) for one in names}}
        group_by = ("who", *(one for one in group_by if one == "target"))
    value = {"value_count": "tool_name"}.get(kind, "amount" if kind in MEASURED else None)
    condition: Any = draw(st.integers(1, 4))
    if kind == "temporal":
        either = [{names[0]}, set(names[1:])] if draw(st.booleans()) else [set(names)]
        condition = either
    if kind in MEASURED:
        condition = draw(st.sampled_from((2, 4, 6)))
    return Spec(
        name=name,
        kind=kind,
        rules=names,
        group_by=group_by,
        span=draw(st.sampled_from((10, 60, 100))),
        condition=condition,
        op=draw(st.sampled_from(("gte", "lt"))) if kind in MEASURED else "gte",
        value=value,
        percentile=draw(st.sampled_from((0, 25, 90, 100))),
        aliases=aliases,
    )


def written(spec: Spec, number: int) -> str:
    """The correlation as a rule document."""
    lines = [
        f"title: {spec.name}",
        f"id: {ID.format(number)}",
        f"name: {spec.name}",
        "level: high",
        "correlation:",
        f"  type: {spec.kind}",
        f"  rules: [{', '.join(spec.rules)}]",
        f"  group-by: [{', '.join(spec.group_by)}]",
        f"  timespan: {spec.span}s",
        "  generate: true",
    ]
    for alias, fields in spec.aliases.items():
        lines += [
            "  aliases:",
            f"    {alias}: {{{', '.join(f'{rule}: {name}' for rule, name in fields.items())}}}",
        ]
    if spec.kind == "temporal":
        joined = " or ".join(f"({' and '.join(sorted(one))})" for one in spec.condition)
        lines += [f"  condition: {joined}"]
    elif spec.kind != "temporal_ordered":
        told = f"{spec.op}: {spec.condition}" + (f", field: {spec.value}" if spec.value else "")
        told += f", percentile: {spec.percentile}" if spec.kind == "value_percentile" else ""
        lines += [f"  condition: {{{told}}}"]
    return "\n".join(lines) + "\n---\n"


def held(chosen: list[Spec], events: Stream, cuts: list[int], checkpoints: bool) -> list[Told]:
    """What the detector finds."""
    rule_set = rules(BASES + "".join(written(spec, 100 + place) for place, spec in enumerate(chosen)))
    records = [
        event(
            "tool.executed",
            one["at"],
            session_id="s",
            tool_args="".join(f"<{name}>" for name in one["tools"]),
            **{
                name: one[name]
                for name in ("event_id", "agent_id", "target", "amount", "tool_name", "reviewer_id")
            },
        )
        for one in events
    ]
    return [
        Told(finding.title, finding.row, tuple(finding.group.values()), finding.event_ids)
        for finding in cut(rule_set, records, cuts, checkpoints)
    ]


def agree(chosen: list[Spec], events: Stream, cuts: list[int]) -> None:
    """One batch, any cuts, and a new detector at each cut: all find what the plain reference finds."""
    expected = plain_findings(chosen, events)
    assert held(chosen, events, [], checkpoints=False) == expected
    assert held(chosen, events, cuts, checkpoints=False) == expected
    assert held(chosen, events, cuts, checkpoints=True) == expected


KINDS = ("event_count", "value_count", *MEASURED, "temporal", "temporal_ordered")
CUTS = st.lists(st.integers(1, 27), max_size=5)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), events=streams(), cuts=CUTS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_correlation_is_exact(kind: str, data: st.DataObject, events: Stream, cuts: list[int]) -> None:
    agree([data.draw(specs(kind))], events, cuts)


@pytest.mark.parametrize("kind", ["event_count", "temporal", "temporal_ordered"])
@given(data=st.data(), events=streams(), cuts=CUTS)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_correlation_of_correlations_is_exact(
    kind: str, data: st.DataObject, events: Stream, cuts: list[int]
) -> None:
    inner = data.draw(specs(data.draw(st.sampled_from(("event_count", "temporal_ordered"))), "inner"))
    outer = data.draw(specs(kind, over=("inner",)))
    agree([inner, outer], events, cuts)
