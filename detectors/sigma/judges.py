"""How a rule turns hits into verdicts: one event, or a correlation of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol

import msgspec

from detectors.sigma.correlation import Correlator, Step
from detectors.sigma.evidence import Verdict, ends
from detectors.sigma.found import Found, bounded, named
from detectors.sigma.groups import Key
from detectors.sigma.relations import COUNTS, MEASURES
from detectors.sigma.rule import Correlation, Reference, Rule, RuleSet
from detectors.sigma.windows import Hit


class Judge(Protocol):
    """One rule at work."""

    rule: Rule

    @property
    def evicted(self) -> int:
        """Groups given up since the process began."""
        ...

    def judge(self, found: Found) -> Iterable[Verdict]:
        """The rule's verdicts on a batch, in row order."""
        ...

    def tick(self, now: int) -> None:
        """Event time has reached ``now``."""
        ...

    def settle(self) -> None:
        """The batch at hand is judged: what it changed stays."""
        ...

    def undo(self) -> None:
        """Take back what the batch at hand has changed since ``settle``."""
        ...

    def state(self) -> dict[str, Any]:
        """Plain data; empty where the rule keeps nothing."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        ...


class SingleJudge:
    """A rule over one event."""

    evicted = 0

    def __init__(self, rule: Rule, places: Mapping[str, int]) -> None:
        self.rule = rule
        self._place = places[rule.id]

    def judge(self, found: Found) -> Iterable[Verdict]:
        """Every row at which the rule holds."""
        return [Verdict(self.rule, self.rule, row) for row in found.rows(self._place)]

    def tick(self, now: int) -> None:
        """Keeps nothing."""

    def settle(self) -> None:
        """Keeps nothing."""

    def undo(self) -> None:
        """Keeps nothing."""

    def state(self) -> dict[str, Any]:
        """Keeps nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Keeps nothing."""


class CorrelationJudge:
    """A rule over several events, or over findings of other correlations.

    Live events and replayed ones are correlated apart, so that history can neither complete a
    live finding nor use up what a live one needs. ``places`` are those of plain rules in the matcher.
    """

    def __init__(self, rule: Rule, spec: Correlation, places: Mapping[str, int], rules: RuleSet) -> None:
        self.rule = rule
        self._spec = spec
        self._places = places
        bases = [rules.get(reference.rule) for reference in spec.references]
        self._bases = [base for base in bases if base is not None]
        self._valued = any(reference.values for reference in spec.references)
        self._lanes = (Correlator(spec), Correlator(spec))

    @property
    def evicted(self) -> int:
        """Groups given up since the process began."""
        return sum(lane.evicted for lane in self._lanes)

    def judge(self, found: Found) -> Iterable[Verdict]:
        """Feed each hit in row order; an event counts once however many base rules it matches."""
        steps: list[Step] = []
        taken: set[int] = set()
        for place, (base, reference) in enumerate(zip(self._bases, self._spec.references, strict=True)):
            new = self._steps(found, place, base, reference)
            if self._spec.kind in COUNTS and base.tree is not None:
                new = [step for step in new if step[0] not in taken]
                taken.update(row for row, _, _ in new)
            steps += new
        if not steps:
            found.verdicts[self.rule.id] = []
            return []
        steps.sort(key=_order)
        verdicts = found.verdicts[self.rule.id] = []
        for lane, replayed in zip(self._lanes, (False, True), strict=True):
            mine = [step for step in steps if found.replayed[step[0]] == replayed]
            for (row, key, hit), hits in lane.take(mine, found.repeats):
                group = named(self._spec.group_by, key)
                verdicts.append(Verdict(self.rule, self._bases[hit.base], row, hits, group))
        verdicts.sort(key=attrgetter("row"))
        return verdicts

    def _steps(self, found: Found, place: int, base: Rule, reference: Reference) -> list[Step]:
        if base.correlation is None:
            rows = found.rows(self._places[base.id])
            if not rows:
                return []
            keyed = found.keyed(rows, reference.group)
            told = self._told(found, [row for row, _ in keyed], reference)
            return [
                (row, key, found.hit(row, place, value, number))
                for (row, key), (value, number) in zip(keyed, told, strict=True)
                if self._counts(value, number)
            ]
        verdicts = found.verdicts[base.id]
        told = self._told(found, [verdict.row for verdict in verdicts], reference)
        return [
            (verdict.row, key, _standing(verdict, place, value, number))
            for verdict, (value, number) in zip(verdicts, told, strict=True)
            if self._counts(value, number) and (key := _inherited(found, verdict, reference)) is not None
        ]

    def _told(
        self, found: Found, rows: Sequence[int], reference: Reference
    ) -> Iterable[tuple[str | None, float | None]]:
        if self._spec.kind in MEASURES:
            return [(None, one) for one in found.measured(rows, reference.values[0])]
        if self._spec.kind == "value_count":
            return [(one, None) for one in found.counted(rows, reference.values)]
        return [(None, None)] * len(rows)

    def _counts(self, value: str | None, number: float | None) -> bool:
        """Whether the hit has what the correlation counts or measures."""
        return not self._valued or value is not None or number is not None

    def tick(self, now: int) -> None:
        """Forget groups gone quiet."""
        for lane in self._lanes:
            lane.tick(now)

    def settle(self) -> None:
        """The batch at hand is judged."""
        for lane in self._lanes:
            lane.settle()

    def undo(self) -> None:
        """Take back the batch at hand."""
        for lane in self._lanes:
            lane.undo()

    def state(self) -> dict[str, Any]:
        """The groups of live events, then those of replayed ones."""
        return {"lanes": [lane.state() for lane in self._lanes]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        for lane, kept in zip(self._lanes, state["lanes"], strict=True):
            lane.restore(kept)


def _order(step: Step) -> tuple[int, int]:
    row, _, hit = step
    return row, hit.base


def _inherited(found: Found, verdict: Verdict, reference: Reference) -> Key | None:
    """The group of a finding: its own group's values where it has them, else those of its last event."""
    key = list(found.key(verdict.row, reference.group))
    for place, name in enumerate(reference.names, 1):
        key[place] = verdict.group.get(name) or key[place]
    given = tuple(part for part in key if part)
    return bounded(given) if len(given) == len(key) else None


def _standing(verdict: Verdict, base: int, value: str | None, number: float | None) -> Hit:
    """A finding as one hit: that of its last event, with the ids of all."""
    last = verdict.hits[-1]
    told = ends(verdict.event_ids)
    return msgspec.structs.replace(
        last, base=base, value=value, number=number, of=told, identity=verdict.identity
    )
