"""How a rule turns hits into verdicts: one event, a correlation, or an absence before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol

import polars as pl

from detectors.sigma.correlation import Correlator, Hit, Key
from detectors.sigma.evidence import Verdict
from detectors.sigma.frame import Matches
from detectors.sigma.preceding import Preceding
from detectors.sigma.rule import Correlation, Reference, Rule, RuleSet
from detectors.sigma.tree import Column

MAX_KEY = 200

Columns = tuple[Column, ...]
"""A field by its alternatives: the first column that says something counts."""


class Found:
    """A batch with what it matched; ``narrowed`` holds the rows left to rules with absences."""

    def __init__(self, frame: pl.DataFrame, matches: Matches) -> None:
        self.frame = frame
        self.matches = matches
        self.narrowed: dict[int, list[int]] = {}
        self._values: dict[str, list[Any]] = {}
        self._texts: dict[Columns, list[str | None]] = {}
        self._keys: dict[tuple[Columns, ...], list[Key]] = {}

    def rows(self, place: int) -> list[int]:
        """The rows at which the rule at this place of the matcher holds, ascending."""
        kept = self.narrowed.get(place)
        return self.matches.rows(place) if kept is None else kept

    @cached_property
    def repeats(self) -> frozenset[int]:
        """The rows that report a call once more."""
        return frozenset(self.frame.get_column("repeat_of").is_not_null().arg_true().to_list())

    def values(self, name: str) -> list[Any]:
        """A column's values, row by row; read once for all rules."""
        found = self._values.get(name)
        if found is None:
            series = self.frame.get_column(name)
            found = (series.to_physical() if series.dtype.is_temporal() else series).to_list()
            self._values[name] = found
        return found

    def texts(self, choice: Columns) -> list[str | None]:
        """The first of the columns that says something, row by row, as text."""
        found = self._texts.get(choice)
        if found is None:
            columns = [self.frame.get_column(column.name).cast(pl.String) for column in choice]
            series = columns[0] if len(columns) == 1 else self.frame.select(pl.coalesce(columns)).to_series()
            found = self._texts[choice] = series.to_list()
        return found

    def keys(self, group: tuple[Columns, ...]) -> list[Key]:
        """The group of every row, of which a part may be None; made once for all rules."""
        found = self._keys.get(group)
        if found is None:
            tenants = [tenant or "default" for tenant in self.values("tenant")]
            found = self._keys[group] = list(zip(tenants, *map(self.texts, group), strict=True))
        return found

    @cached_property
    def replayed(self) -> list[bool]:
        """Whether each row was replayed."""
        return list(map(bool, self.values("replayed")))

    @cached_property
    def times(self) -> list[int]:
        """Time for windows, in microseconds: nothing happens after it has arrived."""
        pairs = zip(self.values("timestamp"), self.values("ingested_at"), strict=True)
        return [at if arrived is None else min(at, arrived) for at, arrived in pairs]

    @cached_property
    def _events(self) -> list[tuple[int, str, str, str | None, str]]:
        # A repeated report of a call has the first one's id.
        frame = self.frame.select(
            pl.coalesce("repeat_of", "event_id"),
            pl.col("event_type"),
            pl.col("tool_name").str.slice(0, MAX_KEY),
            pl.col("identity").fill_null("declared"),
        )
        return list(zip(self.times, *(column.to_list() for column in frame), strict=True))

    def hit(self, row: int, base: int, value: str | None) -> Hit:
        """The row's event as a correlation keeps it."""
        at, event_id, event_type, tool_name, identity = self._events[row]
        return Hit(at, base, event_id, event_type, tool_name, value, identity)


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
    """A rule over several events. Live events and replayed ones are correlated apart, so that
    history can neither complete a live finding nor use up what a live one needs.
    """

    def __init__(self, rule: Rule, spec: Correlation, places: Mapping[str, int], rules: RuleSet) -> None:
        self.rule = rule
        self._spec = spec
        self._places = [places[reference.rule] for reference in spec.references]
        bases = [rules.get(reference.rule) for reference in spec.references]
        self._bases = [base for base in bases if base is not None]
        self._lanes = (Correlator(spec), Correlator(spec))

    @property
    def evicted(self) -> int:
        """Groups given up since the process began."""
        return sum(lane.evicted for lane in self._lanes)

    def judge(self, found: Found) -> Iterable[Verdict]:
        """Feed each hit in row order; an event counts once however many base rules it matches."""
        hits: list[tuple[int, int, Key, str | None]] = []
        taken: set[int] = set()
        for base, (place, reference) in enumerate(zip(self._places, self._spec.references, strict=True)):
            rows = found.rows(place)
            if self._spec.kind.endswith("_count") and len(self._places) > 1:
                rows = [row for row in rows if row not in taken]
                taken.update(rows)
            counted = found.texts(reference.value) if reference.value else None
            for row, key in keyed(found, rows, reference):
                hits.append((row, base, key, counted[row] if counted else None))
        hits.sort(key=itemgetter(0, 1))
        for row, base, key, value in hits:
            lane = self._lanes[found.replayed[row]]
            complete = lane.add(key, found.hit(row, base, value), again=row in found.repeats)
            if complete:
                yield Verdict(self.rule, self._bases[base], row, complete, _named(self._spec.group_by, key))

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


class AbsenceJudge:
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
                for row, key in keyed(found, rows, absence.reference)
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
        rows = found.rows(self._place)
        first = self.rule.absences[0]
        groups = {row: _named(first.group_by, key) for row, key in keyed(found, rows, first.reference)}
        return [Verdict(self.rule, self.rule, row, (), groups.get(row, {})) for row in rows]

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


def _named(group_by: Sequence[str], key: Key) -> dict[str, str | None]:
    # The key begins with the tenant, and may end with the agent that the group is held to.
    return dict(zip(group_by, key[1:], strict=False))


def keyed(found: Found, rows: Sequence[int], reference: Reference) -> Iterable[tuple[int, Key]]:
    """The rows with their group: the tenant, then each group-by field, and the agent where the
    reference adds it.

    A group never spans tenants. A row that lacks a group-by field belongs to no group
    and is left out, as an unknown session is not the same session as another unknown one.
    """
    if not rows:
        return
    keys = found.keys(reference.group)
    for row in rows:
        key = keys[row]
        if all(key):
            yield row, key if len(max(key, key=len)) <= MAX_KEY else _bounded(key)


def _bounded(key: Key) -> Key:
    """Long parts cut and hashed: agents choose them, and state must stay small."""
    return tuple(
        part if len(part) <= MAX_KEY else f"{part[:MAX_KEY]}…{hashlib.sha256(part.encode()).hexdigest()[:16]}"
        for part in key
    )
