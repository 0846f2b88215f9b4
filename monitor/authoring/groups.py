"""A correlation over recorded events: in each group the window that came nearest, and what it lacked."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from detectors.sigma import Rule
from detectors.sigma.evidence import clean, duration
from detectors.sigma.found import bounded
from detectors.sigma.relations import COUNTS
from detectors.sigma.rule import Correlation, Reference
from detectors.sigma.windows import OPS, Hit, measure
from monitor.authoring.scene import MAX_NAME, Scene
from monitor.moments import rfc3339

MOST_GROUPS = 10
MOST_EVENTS = 20
MOST_HITS = 2_000
"""Hits of one group that are looked at: who sends events must not make this take for ever."""

SIGNS = {"gte": "at least", "gt": "more than", "lte": "at most", "lt": "less than", "eq": "exactly"}

Key = tuple[str, ...]


class Window(NamedTuple):
    """The hits of a group's best window, how far it came (1 is there), and that in words."""

    hits: Sequence[Hit]
    progress: float
    told: str


def correlated(rule: Rule, spec: Correlation, scene: Scene) -> dict[str, Any]:
    """The rules that the correlation counts with their hits, its groups, and hits without a group."""
    groups, loose = _grouped(spec, scene)
    fired = {_fired_key(finding.group) for finding in scene.findings(rule)}
    told: list[dict[str, Any]] = []
    for key, hits in groups.items():
        hits.sort(key=lambda hit: (hit.timestamp, hit.base))
        best = _best(spec, scene, hits[:MOST_HITS])
        cut = len(hits) > MOST_HITS
        group = dict(zip(spec.group_by, key[1:], strict=False))
        has_fired = _fired_key(group) in fired and (best.progress >= 1 or cut)
        told.append(
            {
                "group": {name: clean(value, MAX_NAME) for name, value in group.items()},
                "hits": len(hits),
                "fired": has_fired,
                "progress": round(best.progress, 3),
                "window": f"{best.told} (of its first {MOST_HITS} hits)" if cut else best.told,
                "events": [clean(hit.event_id, MAX_NAME) for hit in best.hits[:MOST_EVENTS]],
                "from": rfc3339(best.hits[0].timestamp) if best.hits else None,
                "to": rfc3339(best.hits[-1].timestamp) if best.hits else None,
            }
        )
    told.sort(key=lambda one: (not one["fired"], -one["progress"], str(one["group"])))
    return {
        "kind": spec.kind,
        "group_by": list(spec.group_by),
        "timespan": duration(spec.span),
        "bases": [_base(reference, scene) for reference in spec.references],
        "groups": told[:MOST_GROUPS],
        "groups_in_all": len(told),
        "without_group": loose,
    }


def _fired_key(group: Any) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in group.items())


def _rule(reference: Reference, scene: Scene) -> Rule:
    rule = scene.rules.get(reference.rule)
    assert rule is not None
    return rule


def _base(reference: Reference, scene: Scene) -> dict[str, Any]:
    rule = _rule(reference, scene)
    rows = scene.rows(rule)
    return {
        "rule": clean(rule.title, MAX_NAME),
        "id": rule.id,
        "hits": len(rows),
        "events": [scene.ids[row] for row in rows[:MOST_EVENTS]],
    }


def _grouped(spec: Correlation, scene: Scene) -> tuple[dict[Key, list[Hit]], list[dict[str, Any]]]:
    groups: dict[Key, list[Hit]] = defaultdict(list)
    loose: list[dict[str, Any]] = []
    taken: set[int] = set()
    for place, reference in enumerate(spec.references):
        base = _rule(reference, scene)
        for finding in scene.findings(base):
            row = finding.row
            if row < 0 or (spec.kind in COUNTS and base.tree is not None and row in taken):
                continue
            taken.add(row)
            key = list(scene.found.key(row, reference.group))
            if base.correlation is not None:
                for at, name in enumerate(reference.names, 1):
                    key[at] = finding.group.get(name) or key[at]
            given = tuple(part for part in key if part)
            if len(given) < len(key):
                lacks = [name for name, part in zip(spec.group_by, key[1:], strict=False) if not part]
                loose.append({"event_id": scene.ids[row], "lacks": lacks or ["agent_id"]})
                continue
            hit = scene.found.hit(row, place, *_value(spec, scene, row, reference))
            groups[bounded(given)].append(hit)
    return groups, loose[:MOST_EVENTS]


def _value(
    spec: Correlation, scene: Scene, row: int, reference: Reference
) -> tuple[str | None, float | None]:
    if not reference.values:
        return None, None
    if spec.kind in COUNTS:
        return scene.found.counted([row], reference.values)[0], None
    return None, scene.found.measured([row], reference.values[0])[0]


def _best(spec: Correlation, scene: Scene, hits: list[Hit]) -> Window:
    if spec.kind == "temporal":
        return _together(spec, scene, hits)
    if spec.kind == "temporal_ordered":
        return _in_order(spec, scene, hits)
    if spec.kind in COUNTS:
        return _counted(spec, hits)
    return _measured(spec, hits)


def _window(spec: Correlation, hits: list[Hit], end: int) -> list[Hit]:
    start = bisect_left(hits, hits[end].timestamp - spec.span, key=lambda hit: hit.timestamp)
    return hits[start : end + 1]


def _counted(spec: Correlation, hits: list[Hit]) -> Window:
    distinct = spec.kind == "value_count"
    usable = [hit for hit in hits if not distinct or hit.value is not None]
    what = f" different {spec.value_field}" if distinct else ""
    best: list[Hit] = []
    for end in range(len(usable)):
        chosen = _window(spec, usable, end)
        if distinct:
            chosen = list({hit.value: hit for hit in chosen}.values())
        if len(chosen) > len(best):
            best = chosen
        if len(best) >= spec.threshold:
            break
    told = f"{len(best)} of {spec.threshold:g}{what} within {duration(spec.span)}"
    if distinct and len(usable) < len(hits):
        told += f" ({len(hits) - len(usable)} hits without {spec.value_field})"
    return Window(sorted(best, key=lambda hit: hit.timestamp), len(best) / spec.threshold, told)


def _measured(spec: Correlation, hits: list[Hit]) -> Window:
    usable = [hit for hit in hits if hit.number is not None]
    if not usable:
        return Window(hits, 0.0, f"none of the {len(hits)} hits has a number in {spec.value_field}")
    rated = []
    for end in range(len(usable)):
        chosen = _window(spec, usable, end)
        value = measure(spec, chosen)
        holds = OPS[spec.op](value, spec.threshold)
        rated.append((holds, -abs(value - spec.threshold), -end, value, chosen))
    holds, _, _, value, chosen = max(rated, key=lambda one: one[:3])
    wanted = f"{SIGNS.get(spec.op, spec.op)} {spec.threshold:g} wanted"
    told = f"{spec.kind} of {spec.value_field} {value:g}, {wanted} within {duration(spec.span)}"
    scale = max(abs(value), abs(spec.threshold), 1e-9)
    return Window(chosen, 1.0 if holds else min(0.99, 1 - abs(value - spec.threshold) / (2 * scale)), told)


def _together(spec: Correlation, scene: Scene, hits: list[Hit]) -> Window:
    best = Window((), -1.0, "")
    for end in range(len(hits)):
        chosen = {hit.base: hit for hit in _window(spec, hits, end)}
        for wanted in spec.alternatives:
            progress = len(wanted & chosen.keys()) / len(wanted)
            if progress > best.progress:
                missing = [_title(spec, scene, place) for place in sorted(wanted - chosen.keys())]
                told = f"{len(wanted) - len(missing)} of {len(wanted)} rules within {duration(spec.span)}"
                told += f"; missing: {', '.join(missing)}" if missing else ""
                kept = sorted((chosen[one] for one in wanted & chosen.keys()), key=lambda hit: hit.timestamp)
                best = Window(kept, progress, told)
    return best


def _in_order(spec: Correlation, scene: Scene, hits: list[Hit]) -> Window:
    steps = len(spec.references)
    best: list[Hit] = []
    for start, hit in enumerate(hits):
        if hit.base == 0:
            chain = _chain(spec, hits, start)
            if len(chain) > len(best):
                best = chain
    if len(best) == steps:
        return Window(best, 1.0, f"all {steps} steps within {duration(spec.span)}")
    told = f"{len(best)} of {steps} steps: step {len(best) + 1} ({_title(spec, scene, len(best))}) "
    return Window(best, len(best) / steps, told + _why_missing(spec, hits, best))


def _chain(spec: Correlation, hits: list[Hit], start: int) -> list[Hit]:
    chain = [hits[start]]
    for hit in hits[start + 1 :]:
        if hit.timestamp - chain[0].timestamp > spec.span or len(chain) == len(spec.references):
            break
        if hit.base == len(chain) and hit.event_id not in {one.event_id for one in chain}:
            chain.append(hit)
    return chain


def _why_missing(spec: Correlation, hits: list[Hit], chain: list[Hit]) -> str:
    wanted = [hit for hit in hits if hit.base == len(chain)]
    if not chain:
        return "never came in this group"
    last = chain[-1]
    after = [hit for hit in wanted if hit.timestamp > last.timestamp]
    if after:
        late = duration(after[0].timestamp - chain[0].timestamp)
        return (
            f"came too late: {clean(after[0].event_id, MAX_NAME)} is {late} after the first step, "
            f"{duration(spec.span)} are allowed"
        )
    place = f"after {clean(last.event_id, MAX_NAME)}"
    return f"never came {place}" + ("; it came only before" if wanted else " in this group")


def _title(spec: Correlation, scene: Scene, place: int) -> str:
    return clean(_rule(spec.references[place], scene).title, MAX_NAME)
