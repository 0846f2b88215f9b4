"""What else a rule over one event asks for: what came before it or after it, and what is new in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectors.sigma import Rule
from detectors.sigma.evidence import clean, duration
from detectors.sigma.rule import Absence, FirstSeen
from monitor.authoring.scene import MAX_NAME, Scene
from monitor.moments import rfc3339

Key = tuple[str, ...]
Keys = Mapping[int, Key]


def neighbours(rule: Rule, rows: Sequence[int], scene: Scene) -> list[dict[str, Any]]:
    """For each of the rows at which the condition holds, each further demand: ``demand``, ``met`` (it
    does not stand in the rule's way) and ``found`` in words.
    """
    told = []
    firsts = _firsts(rule, scene) if rule.first_seen is not None else {}
    befores = [_times(absence, scene) for absence in (*rule.absences, *rule.followers)]
    for row in rows:
        checks = [
            _absence(rule, absence, times, row, scene)
            for absence, times in zip((*rule.absences, *rule.followers), befores, strict=True)
        ]
        if rule.first_seen is not None:
            checks.append(_novelty(rule.first_seen, firsts, row, scene))
        told.append({**scene.event(row), "checks": checks})
    return told


def _keys(absence: Absence, rows: Sequence[int], scene: Scene) -> Keys:
    return dict(scene.found.keyed(rows, absence.reference.group))


def _times(absence: Absence, scene: Scene) -> dict[Key, list[int]]:
    """The rows of the other rule's events, by group."""
    base = scene.rules.get(absence.reference.rule)
    assert base is not None
    times: dict[Key, list[int]] = {}
    for row, key in _keys(absence, scene.rows(base), scene).items():
        times.setdefault(key, []).append(row)
    return times


def _absence(
    rule: Rule, absence: Absence, others: Mapping[Key, list[int]], row: int, scene: Scene
) -> dict[str, Any]:
    before = absence in rule.absences
    base = scene.rules.get(absence.reference.rule)
    title = clean(base.title if base else absence.reference.rule, MAX_NAME)
    side = "before" if before else "after"
    demand = f"no event of {title} in the {duration(absence.span)} {side}, same {', '.join(absence.group_by)}"
    key = _keys(absence, [row], scene).get(row)
    if key is None:
        lacks = f"the event lacks {' or '.join(absence.group_by)}"
        ending = "so nothing can have come before it" if before else "so nothing is waited for"
        return {"demand": demand, "met": before, "found": f"{lacks}, {ending}"}
    times = scene.found.times
    found = sorted(others.get(key, ()), key=lambda other: abs(times[other] - times[row]))
    # Before it means arrived before it, too; after it means not in an earlier line.
    fits = [other for other in found if _within(times, row, other, absence.span, before)]
    if fits:
        gap = duration(abs(times[fits[0]] - times[row]))
        return {"demand": demand, "met": False, "found": f"{scene.ids[fits[0]]} came {gap} {side} it"}
    if not found:
        elsewhere = sum(map(len, others.values()))
        hint = f" ({elsewhere} in other groups)" if elsewhere else ""
        return {"demand": demand, "met": True, "found": f"none in this group{hint}"}
    apart = times[found[0]] - times[row]
    where = f"{duration(abs(apart))} {'after' if apart > 0 or (not apart and before) else 'before'} it"
    return {"demand": demand, "met": True, "found": f"none; the nearest, {scene.ids[found[0]]}, came {where}"}


def _within(times: Sequence[int], row: int, other: int, span: int, before: bool) -> bool:
    gap = times[row] - times[other] if before else times[other] - times[row]
    ordered = other < row if before else other > row
    return ordered and 0 <= gap <= span


def _firsts(rule: Rule, scene: Scene) -> dict[tuple[Key, tuple[str, ...]], int]:
    """The first row that shows values in a group; with empty values, the group's earliest row."""
    spec = rule.first_seen
    assert spec is not None
    firsts: dict[tuple[Key, tuple[str, ...]], int] = {}
    times = scene.found.times
    for row, key in scene.found.keyed(scene.matching[rule.id], spec.reference.group):
        values = _values(spec, row, scene)
        if None in values:
            continue
        firsts.setdefault((key, tuple(map(str, values))), row)
        known = firsts.setdefault((key, ()), row)
        if times[row] < times[known]:
            firsts[key, ()] = row
    return firsts


def _values(spec: FirstSeen, row: int, scene: Scene) -> list[str | None]:
    return [scene.found.texts(choice)[row] for choice in spec.reference.values]


def _novelty(
    spec: FirstSeen, firsts: Mapping[tuple[Key, tuple[str, ...]], int], row: int, scene: Scene
) -> dict[str, Any]:
    fields = ", ".join(spec.fields)
    demand = f"new {fields} for a {', '.join(spec.group_by)} known for {duration(spec.after)}"
    values = _values(spec, row, scene)
    key = dict(scene.found.keyed([row], spec.reference.group)).get(row)
    if key is None or None in values:
        lacks = ", ".join(spec.group_by) if key is None else fields
        return {"demand": demand, "met": False, "found": f"the event lacks {lacks}"}
    shown = clean(", ".join(map(str, values)), MAX_NAME)
    first = firsts[key, tuple(map(str, values))]
    if first != row:
        return {"demand": demand, "met": False, "found": f"{shown} was seen before, in {scene.ids[first]}"}
    times = scene.found.times
    since = firsts[key, ()]
    known = times[row] - times[since] if since <= row else 0
    told = f"{shown} is new; the group is known for {duration(max(known, 0))}, since {rfc3339(times[since])}"
    return {"demand": demand, "met": known >= spec.after, "found": told}
