"""Conditions beyond a rule's own event: what came before it, and whether it is new.

A gate narrows the rows at which its rule holds, before anything else reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Protocol

from detectors.sigma.evidence import Verdict
from detectors.sigma.found import Found, named
from detectors.sigma.judges import Judge
from detectors.sigma.novelty import Novelty
from detectors.sigma.preceding import Preceding
from detectors.sigma.rule import FirstSeen, Reference, Rule


class Gate(Judge, Protocol):
    """A judge of a rule with such a condition."""

    def narrow(self, found: Found) -> None:
        """Leave to the rule only the rows at which its condition holds."""
        ...


class AbsenceGate(Gate):
    """A rule over one event that should have been preceded by another, live by live and replayed
    by replayed.
    """

    def __init__(self, rule: Rule, places: Mapping[str, int]) -> None:
        self.rule = rule
        self._place = places[rule.id]
        self._before = [places[absence.reference.rule] for absence in rule.absences]
        self._preceding = [(Preceding(absence.span), Preceding(absence.span)) for absence in rule.absences]

    @property
    def evicted(self) -> int:
        """Groups given up since the process began."""
        return sum(preceding.evicted for preceding in self._all())

    def narrow(self, found: Found) -> None:
        """Leave to the rule only the rows that nothing preceded, before anything reads them."""
        triggers = found.rows(self._place)
        missing = dict.fromkeys(triggers, True)
        for absence, place, lanes in zip(self.rule.absences, self._before, self._preceding, strict=True):
            # At an equal row the question (False) comes before the answer (True): no event precedes itself.
            steps = [
                (row, is_before, key)
                for is_before, rows in ((False, triggers), (True, found.rows(place)))
                for row, key in found.keyed(rows, absence.reference.group)
            ]
            for row, is_before, key in sorted(steps):
                lane = lanes[found.replayed[row]]
                if is_before:
                    lane.add(key, found.times[row])
                elif lane.seen(key, found.times[row]):
                    missing[row] = False
        found.narrowed[self._place] = [row for row in triggers if missing[row]]

    def judge(self, found: Found) -> Iterable[Verdict]:
        """The rows left by ``narrow``, grouped as the first alternative groups them."""
        first = self.rule.absences[0]
        return _grouped(self.rule, found, found.rows(self._place), first.reference, first.group_by)

    def tick(self, now: int) -> None:
        """Forget groups gone quiet."""
        for preceding in self._all():
            preceding.tick(now)

    def settle(self) -> None:
        """The batch at hand is judged."""
        for preceding in self._all():
            preceding.settle()

    def undo(self) -> None:
        """Take back the batch at hand."""
        for preceding in self._all():
            preceding.undo()

    def _all(self) -> Iterable[Preceding]:
        return chain.from_iterable(self._preceding)

    def state(self) -> dict[str, Any]:
        """The times of each alternative, live and replayed."""
        return {"preceding": [preceding.state() for preceding in self._all()]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        for preceding, kept in zip(self._all(), state["preceding"], strict=True):
            preceding.restore(kept)


class NoveltyGate(Gate):
    """A rule over one event that shows its group values not seen before."""

    def __init__(self, rule: Rule, spec: FirstSeen, places: Mapping[str, int]) -> None:
        self.rule = rule
        self._spec = spec
        self._place = places[rule.id]
        self._lanes = (Novelty(spec.after), Novelty(spec.after))

    @property
    def evicted(self) -> int:
        """Groups and values given up since the process began."""
        return sum(lane.evicted for lane in self._lanes)

    def narrow(self, found: Found) -> None:
        """Leave to the rule the rows that show something new; rows without a value show nothing."""
        reference = self._spec.reference
        new = []
        for row, key in found.keyed(found.rows(self._place), reference.group):
            values = [found.texts(choice)[row] for choice in reference.values]
            told = [value for value in values if value is not None]
            lane = self._lanes[found.replayed[row]]
            if len(told) == len(values) and lane.new(key, found.times[row], told):
                new.append(row)
        found.narrowed[self._place] = new

    def judge(self, found: Found) -> Iterable[Verdict]:
        """The rows left by ``narrow``, with their group."""
        return _grouped(self.rule, found, found.rows(self._place), self._spec.reference, self._spec.group_by)

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
        """What live groups have shown, then replayed ones."""
        return {"lanes": [lane.state() for lane in self._lanes]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        for lane, kept in zip(self._lanes, state["lanes"], strict=True):
            lane.restore(kept)


def _grouped(
    rule: Rule, found: Found, rows: list[int], reference: Reference, group_by: tuple[str, ...]
) -> Iterator[Verdict]:
    groups = {row: named(group_by, key) for row, key in found.keyed(rows, reference.group)}
    return (Verdict(rule, rule, row, (), groups.get(row, {})) for row in rows)
