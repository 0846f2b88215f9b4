"""A session's tool calls as a drawing: one box a call, in order, with what became of each.

Beside the calls stand where alerts fired, and where a suspicious value came from: an arrow from the
call whose result held it to the call that used it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from detectors.base import LEVELS

MOST_CALLS = 240
COLUMNS = 5
BOX_WIDTH, BOX_HEIGHT = 168, 40
GAP_X, GAP_Y = 32, 44
MARGIN = 20
WIDTH = 2 * MARGIN + COLUMNS * BOX_WIDTH + (COLUMNS - 1) * GAP_X

REFUSED = frozenset({"deny"})
ASKED, RAN, BLOCKED, FAILED, CANCELLED = "asked", "ran", "blocked", "failed", "cancelled"


@dataclass
class Call:
    """One tool call. ``state`` says how it ended; ``approved`` by whom, ``refused`` by which policy.

    ``flags`` are the alerts that name one of its events, gravest first, as ``(id, level, title)``.
    """

    number: int
    tool: str
    moment: int
    state: str = ASKED
    approved: str = ""
    refused: str = ""
    target: str = ""
    flags: list[tuple[str, str, str]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    x: int = 0
    y: int = 0


@dataclass(frozen=True)
class Flow:
    """A value that went from the result of one call into another, drawn as the path ``d``."""

    argument: str
    value: str
    source: str
    d: str


@dataclass(frozen=True)
class Story:
    """The drawing; ``left_out`` counts later calls, ``links`` are the paths from call to call."""

    calls: tuple[Call, ...]
    flows: tuple[Flow, ...]
    links: tuple[str, ...]
    left_out: int
    width: int
    height: int


Flag = tuple[str, str, str, frozenset[str]]
"""An alert: its id, level, title and event ids."""


def story(events: Sequence[Mapping[str, Any]], flags: Iterable[Flag], evidence: Iterable[Any]) -> Story:
    """Draw a session; ``events`` in order, ``evidence`` that of its alerts."""
    every = _calls(events)
    calls = every[:MOST_CALLS]
    for call in calls:
        row, column = divmod(call.number - 1, COLUMNS)
        call.x, call.y = MARGIN + column * (BOX_WIDTH + GAP_X), MARGIN + row * (BOX_HEIGHT + GAP_Y)
    _flag(calls, flags)
    rows = -(-len(calls) // COLUMNS)
    links = tuple(_link(one, other) for one, other in pairwise(calls))
    height = 2 * MARGIN + max(0, rows * (BOX_HEIGHT + GAP_Y) - GAP_Y)
    flows = tuple(_flows(calls, evidence))
    return Story(tuple(calls), flows, links, len(every) - len(calls), WIDTH, height)


def _calls(events: Sequence[Mapping[str, Any]]) -> list[Call]:
    """What belongs together by call id; without one, what follows a request of the same tool."""
    calls: list[Call] = []
    by_id: dict[str, Call] = {}
    latest: dict[str, Call] = {}
    for event in events:
        kind, tool = event["event_type"], event.get("tool_name")
        if not tool or kind not in _ACTS:
            continue
        call_id = event.get("tool_call_id")
        call = by_id.get(call_id) if call_id else latest.get(tool)
        begins = kind == "tool.requested" and (call is None or not call_id)
        if call is None or begins or (call_id is None and kind == "tool.executed" and call.state == RAN):
            call = Call(len(calls) + 1, str(tool), int(event["moment"]))
            calls.append(call)
        if call_id:
            by_id[str(call_id)] = call
        latest[str(tool)] = call
        call.events.append(str(event["event_id"]))
        call.target = call.target or str(event.get("target") or "")
        _ACTS[kind](call, event)
    return calls


def _requested(call: Call, event: Mapping[str, Any]) -> None:
    if event.get("outcome") == "blocked":
        call.state, call.refused = BLOCKED, str(event.get("policy_id") or "a policy")


def _checked(call: Call, event: Mapping[str, Any]) -> None:
    if event.get("policy_decision") in REFUSED or event.get("outcome") == "blocked":
        call.state, call.refused = BLOCKED, str(event.get("policy_id") or "a policy")


def _approved(call: Call, event: Mapping[str, Any]) -> None:
    if event.get("review_decision") == "reject":
        call.state, call.refused = BLOCKED, str(event.get("reviewer_id") or "a person")
    else:
        call.approved = str(event.get("reviewer_id") or event.get("decision_source") or "somebody")


def _executed(call: Call, event: Mapping[str, Any]) -> None:
    outcome = event.get("outcome")
    ends = {"blocked": BLOCKED, "failure": FAILED, "timeout": FAILED, "cancelled": CANCELLED}
    call.state = ends.get(str(outcome), RAN)


_ACTS = {
    "tool.requested": _requested,
    "policy.checked": _checked,
    "tool.approved": _approved,
    "human.reviewed": _approved,
    "tool.executed": _executed,
}


def _flag(calls: Sequence[Call], flags: Iterable[Flag]) -> None:
    for alert_id, level, title, ids in flags:
        for call in calls:
            if ids.intersection(call.events):
                call.flags.append((alert_id, level, title))
    for call in calls:
        call.flags.sort(key=lambda flag: -LEVELS.index(flag[1]) if flag[1] in LEVELS else 1)


def _flows(calls: Sequence[Call], evidence: Iterable[Any]) -> Iterable[Flow]:
    """From what provenance findings say: the source tool's last result before the flagged call."""
    for one in evidence:
        observed = one.get("observed") if isinstance(one, Mapping) else None
        if not isinstance(observed, Mapping) or not isinstance(observed.get("values"), list):
            continue
        sink = next((call for call in calls if call.flags and call.tool == observed.get("tool")), None)
        if sink is None:
            continue
        for value in observed["values"]:
            source = value.get("source_tool") if isinstance(value, Mapping) else None
            before = [call for call in calls[: sink.number - 1] if call.tool == source]
            if before:
                argument, text = str(value.get("argument") or ""), str(value.get("value") or "")
                yield Flow(argument, text, str(source), _arc(before[-1], sink))


def _link(one: Call, other: Call) -> str:
    middle = BOX_HEIGHT // 2
    if one.y == other.y:
        return f"M{one.x + BOX_WIDTH} {one.y + middle}H{other.x - 2}"
    turn = one.y + BOX_HEIGHT + GAP_Y // 2
    start, end = one.x + BOX_WIDTH // 2, other.x + BOX_WIDTH // 2
    return f"M{start} {one.y + BOX_HEIGHT}V{turn}H{end}V{other.y - 2}"


def _arc(one: Call, other: Call) -> str:
    x1, x2 = one.x + BOX_WIDTH - 24, other.x + 24
    if one.y == other.y:
        return f"M{x1} {one.y}C{x1} {one.y - 18},{x2} {one.y - 18},{x2} {other.y - 2}"
    y1, y2 = one.y + BOX_HEIGHT, other.y - 2
    return f"M{x1} {y1}C{x1} {y1 + 26},{x2} {y2 - 26},{x2} {y2}"
