"""Sigma correlations as the documentation tells them, slow and obvious: a second opinion.

Nothing is forgotten early, put off, thinned out or taken back: every hit is kept, and for every arrival all
windows and all chains are looked at one after the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

import numpy as np

LATENESS = 600
"""Seconds behind its group's newest window at which a hit is too late."""


@dataclass(frozen=True)
class Hit:
    """An event, or a finding of an inner correlation, that ``rule`` matched at second ``at``."""

    at: float
    number: int
    rule: str
    events: tuple[str, ...]
    value: Any = None


@dataclass(frozen=True)
class Told:
    """A finding: what the tests compare."""

    rule: str
    row: int
    group: tuple[Any, ...]
    events: tuple[str, ...]


@dataclass
class Story:
    """The hits of one group, and the time up to which they were reported."""

    hits: list[Hit] = field(default_factory=list)
    reported: float | None = None


@dataclass
class Spec:
    """A correlation rule. ``condition`` are the sets of rules of which one must be complete (temporal), else
    the number; ``value`` names the field that is counted or measured; ``aliases`` map a group-by name and a
    rule to the rule's own field.
    """

    name: str
    kind: str
    rules: tuple[str, ...]
    group_by: tuple[str, ...]
    span: int
    condition: Any
    op: str = "gte"
    value: str | None = None
    percentile: int = 50
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


Event = Mapping[str, Any]


def plain_findings(specs: Sequence[Spec], events: Sequence[Event]) -> list[Told]:
    """The findings of all correlations, inner ones first, in the order of the events.

    An event matches the base rule that its ``tools`` name.
    """
    told: list[Told] = []
    stories: dict[tuple[str, tuple[Any, ...]], Story] = defaultdict(Story)
    for row, event in enumerate(events):
        inner: dict[str, list[tuple[Told, Hit]]] = defaultdict(list)
        for spec in specs:
            for key, hit in _arrivals(spec, row, event, inner):
                story = stories[spec.name, key]
                found = _arrive(spec, story, hit)
                if found:
                    ids = tuple(dict.fromkeys(one for each in found for one in each.events))
                    one = Told(spec.name, row, key, ids)
                    last = Hit(found[-1].at, row, spec.name, ids, found[-1].events[-1])
                    inner[spec.name].append((one, last))
                    told.append(one)
    return told


def _arrivals(
    spec: Spec, row: int, event: Event, inner: Mapping[str, list[tuple[Told, Hit]]]
) -> list[tuple[tuple[Any, ...], Hit]]:
    """What the event brings to the correlation; counts take an event once, whatever rules it meets."""
    found: list[tuple[tuple[Any, ...], Hit]] = []
    for rule in spec.rules:
        given = [(event, None)] if rule in event["tools"] else []
        pairs: list[tuple[Event, tuple[Told, Hit] | None]] = [*given, *((event, one) for one in inner[rule])]
        for _, of in pairs:
            key = tuple(event.get(spec.aliases.get(name, {}).get(rule, name)) for name in spec.group_by)
            value = event.get(spec.value) if spec.value else None
            if None in key or (spec.value and value is None):
                continue
            plain = Hit(event["at"], row, rule, (event["event_id"],), value)
            hit = plain if of is None else Hit(of[1].at, row, rule, of[1].events, value)
            found.append((key, hit))
        if found and spec.kind in ("event_count", "value_count") and rule in event["tools"]:
            break
    return found


def _arrive(spec: Spec, story: Story, hit: Hit) -> list[Hit]:
    temporal = spec.kind.startswith("temporal")
    if story.hits and hit.at < max(one.at for one in story.hits) - spec.span - LATENESS:
        return []
    if temporal and story.reported is not None and hit.at < story.reported:
        return []
    story.hits.append(hit)
    story.hits.sort(key=lambda one: one.at)  # stable: of equal times the later arrival comes later
    judge = _chain if spec.kind == "temporal_ordered" else _window
    found = judge(spec, story, hit)
    if found:
        story.reported = max(found[-1].at, story.reported or found[-1].at)
        if temporal:
            del story.hits[: story.hits.index(found[-1]) + 1]
    return found


def _window(spec: Spec, story: Story, hit: Hit) -> list[Hit]:
    """The first window through the hit, by its end, that meets the condition."""
    place = next(place for place, one in enumerate(story.hits) if one is hit)
    for end in range(place, len(story.hits)):
        last = story.hits[end]
        if last.at - hit.at > spec.span:
            return []
        window = [one for one in story.hits[: end + 1] if one.at >= last.at - spec.span]
        if not spec.kind.startswith("temporal"):
            fresh = story.reported is None or story.reported < last.at - spec.span
            if not fresh:
                continue
        found = _complete(spec, window)
        if found:
            return found
    return []


def _complete(spec: Spec, window: Sequence[Hit]) -> list[Hit]:
    if spec.kind == "event_count":
        return [*window] if len(window) >= spec.condition else []
    if spec.kind == "value_count":
        return _newest(window, "value") if len({one.value for one in window}) >= spec.condition else []
    if spec.kind == "temporal":
        for wanted in spec.condition:
            if wanted <= {one.rule for one in window}:
                return _newest([one for one in window if one.rule in wanted], "rule")
        return []
    values = [one.value for one in window]
    figure = {
        "value_sum": np.sum,
        "value_avg": np.mean,
        "value_median": np.median,
        "value_percentile": lambda some: np.percentile(some, spec.percentile),
    }[spec.kind](values)
    return [*window] if (figure >= spec.condition if spec.op == "gte" else figure < spec.condition) else []


def _newest(window: Sequence[Hit], by: str) -> list[Hit]:
    """Of each value, or each rule, the newest hit."""
    newest = {getattr(one, by): place for place, one in enumerate(window)}
    return [window[place] for place in sorted(newest.values())]


def _chain(spec: Spec, story: Story, hit: Hit) -> list[Hit]:
    """Of all chains through the hit, one event for each rule in order, the one nearest around it."""
    steps = [[p for p, one in enumerate(story.hits) if one.rule == rule] for rule in spec.rules]
    own = next(place for place, one in enumerate(story.hits) if one is hit)
    turn = spec.rules.index(hit.rule)
    steps[turn] = [own]
    chains = []
    for chain in product(*steps):
        hits = [story.hits[place] for place in chain]
        rising = all(one < other for one, other in pairwise(chain))
        if (
            rising
            and len({one.events[-1] for one in hits}) == len(hits)
            and hits[-1].at - hits[0].at <= spec.span
        ):
            distance = [-place for place in reversed(chain[:turn])] + list(chain[turn + 1 :])
            chains.append((distance, hits))
    return min(chains, key=lambda one: one[0])[1] if chains else []
