"""Why a rule fired on recorded events, or did not."""

from __future__ import annotations

from typing import Any

from detectors.sigma import Rule
from detectors.sigma.evidence import clean
from monitor.authoring.conditions import Explained, at_event, nearest
from monitor.authoring.groups import correlated
from monitor.authoring.neighbours import neighbours
from monitor.authoring.overview import kind, state
from monitor.authoring.scene import MOST_EVENTS, Scene
from monitor.moments import rfc3339

MOST_FINDINGS = 20
MOST_BASE_EVENTS = 3
"""Events told of a rule that a correlation counts."""

MAX_SENTENCE = 400
MAX_PART = 100
MOST_PARTS = 3


class UnknownEventError(ValueError):
    """No event has this id."""


def explain(rule: Rule, scene: Scene, most: int = 20, event_id: str | None = None) -> dict[str, Any]:
    """Plain data: what the rule found, its condition at the ``most`` events that came nearest (or at
    the one with this id), what a correlation or an absence lacked, and a sentence, ``summary``.

    Raises UnknownEventError.
    """
    rows = None if event_id is None else _rows_of(event_id, scene)
    told: dict[str, Any] = {
        "rule": {"id": rule.id, "title": clean(rule.title, 200), "kind": kind(rule), "state": state(rule)},
        "events_read": scene.height,
        "cut": scene.cut,
        "fired": False,
        "findings": [],
        "events": [],
        "neighbours": [],
        "correlation": None,
        "bases": [],
    }
    if rule.missing or not scene.height:
        return {**told, "summary": _summary(rule, scene, told)}
    findings = scene.findings(rule)
    told["fired"] = bool(findings)
    told["findings"] = [
        {
            "timestamp": rfc3339(finding.timestamp),
            "event_ids": [clean(one, 120) for one in finding.event_ids],
            "reason": clean(finding.reason, MAX_SENTENCE),
        }
        for finding in findings[:MOST_FINDINGS]
    ]
    told["findings_in_all"] = len(findings)
    if rule.correlation is not None:
        told["correlation"] = correlated(rule, rule.correlation, scene)
        told["bases"] = [_base(base, scene, rows) for base in _plain_bases(rule, scene)]
    else:
        chosen = nearest(rule, scene, most) if rows is None else rows
        told["events"] = [at_event(rule, row, scene) for row in chosen]
        if rule.extended:
            holding = (
                scene.matching[rule.id]
                if rows is None
                else [*filter(scene.matching[rule.id].__contains__, rows)]
            )
            told["neighbours"] = neighbours(rule, holding[:most], scene)
    told["summary"] = _summary(rule, scene, told)
    return told


def _rows_of(event_id: str, scene: Scene) -> list[int]:
    rows = [row for row, one in enumerate(scene.found.values("event_id")) if one == event_id]
    if not rows:
        raise UnknownEventError(f"no event has the id {clean(event_id, 120)!r}")
    return rows


def _plain_bases(rule: Rule, scene: Scene) -> list[Rule]:
    """The rules over one event at the bottom of a correlation, each once."""
    found: dict[str, Rule] = {}
    for name in rule.used:
        base = scene.rules.get(name)
        assert base is not None
        below = [base] if base.tree is not None else _plain_bases(base, scene)
        found |= {one.id: one for one in below}
    return [*found.values()]


def _base(base: Rule, scene: Scene, rows: list[int] | None) -> dict[str, Any]:
    chosen = nearest(base, scene, MOST_BASE_EVENTS) if rows is None else rows
    return {
        "rule": clean(base.title, 200),
        "id": base.id,
        "hits": len(scene.matching[base.id]),
        "events": [at_event(base, row, scene) for row in chosen],
    }


def _summary(rule: Rule, scene: Scene, told: dict[str, Any]) -> str:
    more = f" Only the first {MOST_EVENTS} events were looked at." if scene.cut else ""
    if not scene.height:
        return "There is no event to look at."
    if rule.missing:
        return f"It can match nothing: it is {state(rule)}."
    if told["fired"]:
        count = told["findings_in_all"]
        times = "once" if count == 1 else f"{count} times"
        quiet = (
            "" if rule.generate else " As a building block, or counted by others, it reports nothing itself."
        )
        return f"It fired {times}; first: {told['findings'][0]['reason']}.{quiet}{more}"
    return f"It did not fire: {_why_not(rule, scene, told)}.{more}"


def _why_not(rule: Rule, scene: Scene, told: dict[str, Any]) -> str:
    related = told["correlation"]
    if related is not None:
        if related["groups"]:
            best = related["groups"][0]
            where = ", ".join(f"{name} {value}" for name, value in best["group"].items())
            return f"{best['window']}{f' in {where}' if where else ''}"
        if related["without_group"]:
            lacking = ", ".join(related["without_group"][0]["lacks"])
            return f"no hit belongs to a group; {related['without_group'][0]['event_id']} lacks {lacking}"
        silent = [base["rule"] for base in related["bases"] if not base["hits"]]
        return f"none of the events is one of {', '.join(silent)}"
    for event in told["neighbours"]:
        for check in event["checks"]:
            if not check["met"]:
                return f"the condition holds at {event['event_id']}, but {check['found']}"
    if scene.matching[rule.id]:
        return (
            f"the condition holds at {scene.ids[scene.matching[rule.id][0]]}, but not what else it asks for"
        )
    if not told["events"]:
        return "no event was looked at"
    best = max(told["events"], key=lambda event: _share(event["condition"]))
    failed = _failed(best["condition"])
    return f"no event meets the condition; the nearest, {best['event_id']}, fails at: {failed}"


def _share(condition: Explained) -> float:
    below = condition.get("items")
    if condition["kind"] == "and" and below:
        return sum(map(_share, below)) / len(below)
    if condition["kind"] == "or" and below:
        return max(map(_share, below))
    return float(condition["held"])


def _failed(condition: Explained) -> str:
    """The parts that did not hold, in words; of an `or` that of the nearest alternative."""
    match condition["kind"]:
        case "and":
            failed = [_failed(item) for item in condition["items"] if not item["held"]]
            rest = f" and {len(failed) - MOST_PARTS} more" if len(failed) > MOST_PARTS else ""
            return " and ".join(failed[:MOST_PARTS]) + rest
        case "or":
            nearest_one = max(condition["items"], key=_share, default=None)
            if nearest_one is None:
                return "a condition that holds nowhere"
            others = len(condition["items"]) - 1
            return f"{_failed(nearest_one)}{f' (nor any of {others} alternatives)' if others else ''}"
        case "not":
            return f"an exclusion applies ({_held(condition['items'][0])})"
    seen = "nothing" if condition["seen"] is None else clean(str(condition["seen"]), MAX_PART)
    return f"{clean(condition['wanted'], MAX_PART)} (seen: {seen})"


def _held(condition: Explained) -> str:
    """The parts that held, in words."""
    if condition["kind"] == "leaf":
        return clean(condition["wanted"], MAX_PART)
    if condition["kind"] == "not":
        return f"not {_failed(condition['items'][0])}"
    return " and ".join(_held(item) for item in condition["items"] if item["held"])
