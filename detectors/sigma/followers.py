"""A rule over one event that nothing followed in time (extension ``not_followed_by``)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from detectors.base import Finding
from detectors.sigma.evidence import Verdict, findings
from detectors.sigma.following import GRACE, Following
from detectors.sigma.found import Found, named
from detectors.sigma.groups import Key
from detectors.sigma.rule import MICROSECONDS, Rule


class FollowerJudge:
    """Finds what did not come, live by live and replayed by replayed.

    Live time is that of arrival, and ticks move it; the time of replayed events is their own. The
    finding is about the event that waited; its ``row`` is where time showed that nothing came.
    """

    def __init__(self, rule: Rule, places: Mapping[str, int]) -> None:
        (self._absence,) = rule.followers
        self.rule = rule
        self._place = places[rule.id]
        self._after = places[self._absence.reference.rule]
        self._lanes = (Following(self._absence.span), Following(self._absence.span))
        self._found: Found | None = None

    @property
    def evicted(self) -> int:
        """Groups given up since the process began."""
        return sum(lane.evicted for lane in self._lanes)

    @property
    def patience(self) -> int:
        """Microseconds after which what has not come counts as absent, for certain."""
        return self._absence.span + GRACE + MICROSECONDS

    def findings(self, found: Found) -> list[Finding]:
        """What time has shown not to have come, by the row that shows it."""
        self._found = found
        reference = self._absence.reference
        # At an equal row the answer (False) comes before the question (True): no event follows itself.
        steps = [
            (row, begins, key)
            for begins, rows in ((True, found.rows(self._place)), (False, found.rows(self._after)))
            for row, key in found.keyed(rows, reference.group)
        ]
        overdue: list[Finding] = []
        for row, begins, key in sorted(steps):
            again = found.replayed[row]
            lane = self._lanes[again]
            # Time up to the row before: what comes with the row that ends the time has come.
            overdue += self._due(found, again, row)
            if begins:
                lane.begin(key, found.times[row], found.clock[row], row)
            else:
                lane.came(key, found.times[row])
        for again in (False, True):
            overdue += self._due(found, again, len(found.clock))
        return sorted(overdue, key=lambda finding: (finding.row, finding.finding_id))

    def _due(self, found: Found, again: bool, before: int) -> list[Finding]:
        rows = found.lane_rows[again]
        last = bisect_left(rows, before) - 1
        if last < 0:
            return []
        due = []
        for _, awaited in self._lanes[again].due(found.clock[rows[last]]):
            row = next(row for row in rows if found.clock[row] >= awaited.deadline)
            due.append(msgspec.structs.replace(self._finding(awaited.what), row=row))
        return due

    def _finding(self, what: Any) -> Finding:
        (plain,) = self._told([what]) if isinstance(what, int) else (what,)
        return msgspec.convert(plain, Finding)

    def _told(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The findings on rows of the batch at hand, as plain data."""
        found = self._found
        if not rows or found is None:
            return []
        reference, group_by = self._absence.reference, self._absence.group_by
        groups: dict[int, Key] = dict(found.keyed(rows, reference.group))
        verdicts = [Verdict(self.rule, self.rule, row, (), named(group_by, groups[row])) for row in rows]
        return [msgspec.to_builtins(one) for one in findings(verdicts, found.frame, found.matches)]

    def tick(self, now: int) -> list[Finding]:
        """Event time has reached ``now``: what has not come by then."""
        due = [self._finding(awaited.what) for _, awaited in self._lanes[0].due(now)]
        self.settle()
        return [msgspec.structs.replace(finding, row=-1) for finding in due]

    def settle(self) -> None:
        """The batch at hand is judged: what still waits is kept as the finding it may become."""
        for lane in self._lanes:
            lane.settle(self._told)
        self._found = None

    def undo(self) -> None:
        """Take back the batch at hand."""
        for lane in self._lanes:
            lane.undo()
        self._found = None

    def state(self) -> dict[str, Any]:
        """Who waits among live events, then among replayed ones."""
        return {"lanes": [lane.state() for lane in self._lanes]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        for lane, kept in zip(self._lanes, state["lanes"], strict=True):
            lane.restore(kept)
