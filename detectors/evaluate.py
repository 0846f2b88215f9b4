"""Recorded sessions judged: one row per session and detector, and how good that is against labels.

A row's score rises with suspicion. ``combined`` is the ranking over all detectors: the bits of each,
added up, those of a lesser detector by its share of the budget beside that of the main one; and those of
the rules that fired. Its p-value is that of the least one by its share (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from detectors.base import LEVELS, Batch, Finding, Scored
from detectors.learner import events
from detectors.sessions import DAY

COMBINED = "combined"

RULES = "sigma"

RULE_BITS = dict(zip(LEVELS, (1.0, 4.0, 8.0, 12.0, 16.0), strict=True))
"""How much a match of a rule counts in the ranking, by level; no match happens by chance."""

CONFIDENCE = 0.95

CALLS = frozenset({"tool.requested", "tool.executed"})


class Row(NamedTuple):
    """What one detector makes of one session. ``event_id`` is where it alerted, else where it peaked."""

    session: str
    detector: str
    score: float
    p_value: float
    alerted: bool
    event_id: str
    timestamp: int


class Session:
    """A session as it was seen: its agent, its beginning, its calls in order."""

    __slots__ = ("agent_id", "calls", "first_event", "start")

    def __init__(self, agent_id: str, start: int, first_event: str) -> None:
        self.agent_id = agent_id
        self.start = start
        self.first_event = first_event
        self.calls: list[str] = []


class Board:
    """Everything that detectors say of sessions, by session and detector."""

    def __init__(self, detectors: Iterable[str], shares: Mapping[str, float]) -> None:
        self.detectors = tuple(detectors)
        self.sessions: dict[str, Session] = {}
        self.events = 0
        self._shares = shares
        self._best: dict[tuple[str, str], Scored] = {}
        self._alerts: dict[tuple[str, str], tuple[str, int]] = {}

    def see(self, frame: pl.DataFrame) -> None:
        """Note the sessions of a batch."""
        self.events += frame.height
        for event in events(Batch(frame)):
            if event is None:
                continue
            name = event.session_id or event.key[1:]
            if not name:
                continue
            session = self.sessions.get(name)
            if session is None:
                session = self.sessions[name] = Session(event.agent_id, event.at, event.event_id)
            if event.kind in CALLS:
                session.calls.append(event.event_id)

    def score(self, one: Scored) -> None:
        """A detector has a new highest score of a session."""
        place = one.session, one.detector
        if place not in self._best or one.score > self._best[place].score:
            self._best[place] = one

    def find(self, one: Finding) -> None:
        """A detector has alerted."""
        session, event_id = one.session_id or "", one.event_ids[-1]
        if session not in self.sessions:
            return
        self._alerts.setdefault((session, one.detector), (event_id, one.timestamp))
        self._alerts.setdefault((session, COMBINED), (event_id, one.timestamp))
        if one.detector == RULES:
            bits = RULE_BITS[one.level]
            self.score(
                Scored(RULES, one.tenant, one.agent_id, session, bits, 1.0, bits, event_id, one.timestamp)
            )

    def rows(self) -> list[Row]:
        """One row per session and detector, sessions in order of appearance, ``combined`` last."""
        return [
            self._row(name, session, detector)
            for name, session in self.sessions.items()
            for detector in (*self.detectors, COMBINED)
        ]

    def _row(self, name: str, session: Session, detector: str) -> Row:
        best = self._together(name) if detector == COMBINED else self._best.get((name, detector))
        alert = self._alerts.get((name, detector))
        if best is None:
            place = alert or (session.first_event, session.start)
            return Row(name, detector, 0.0, 1.0, alert is not None, *place)
        place = alert or (best.event_id, best.timestamp)
        return Row(name, detector, best.score, best.p_value, alert is not None, *place)

    def _together(self, name: str) -> Scored | None:
        """All detectors' scores of a session as one, at the event of the one that counts most."""
        known = [one for detector in self.detectors if (one := self._best.get((name, detector)))]
        if not known:
            return None
        bits = [one.surprise * self._weight(one.detector) for one in known]
        p_values = [one.p_value / self._shares.get(one.detector, 1.0) for one in known]
        most = known[max(range(len(known)), key=bits.__getitem__)]
        return most._replace(detector=COMBINED, score=sum(bits), p_value=min(1.0, *p_values))

    def _weight(self, detector: str) -> float:
        most = max(self._shares.values())
        return self._shares.get(detector, most) / most

    def alerts(self, since: int) -> list[tuple[str, str, int]]:
        """Detector, agent and time of each alerted session from ``since`` on (microseconds)."""
        return [
            (detector, self.sessions[name].agent_id, when)
            for (name, detector), (_, when) in self._alerts.items()
            if self.sessions[name].start >= since
        ]

    def days(self, since: int) -> float:
        """Days from the first to the last session that began at ``since`` or later; at least one."""
        starts = [session.start for session in self.sessions.values() if session.start >= since]
        return max(1.0, (max(starts) - min(starts)) / DAY) if starts else 1.0


class Label(NamedTuple):
    """What a session was. ``first_malicious`` is the first call that carried an attacker's value."""

    attack: bool
    first_malicious: str = ""


def measured(board: Board, labels: Mapping[str, Label], since: int) -> dict[str, dict[str, Any]]:
    """For each detector, how its ranking and its alerts stand against the labels, from ``since`` on."""
    rows: dict[str, list[Row]] = {name: [] for name in (*board.detectors, COMBINED)}
    for row in board.rows():
        if row.session in labels and board.sessions[row.session].start >= since:
            rows[row.detector].append(row)
    return {name: _against(board, some, labels) for name, some in rows.items()}


def _against(board: Board, rows: list[Row], labels: Mapping[str, Label]) -> dict[str, Any]:
    attack = np.array([labels[row.session].attack for row in rows], dtype=bool)
    score = np.array([row.score for row in rows], dtype=float)
    alerted = np.array([row.alerted for row in rows], dtype=bool)
    said: dict[str, Any] = {
        "recall": _rate(alerted[attack]),
        "false_positive_rate": _rate(alerted[~attack]),
        "auc": None,
        "recall_at": {},
        "delay_calls": None,
        "at_or_before_first_malicious": None,
    }
    if attack.any() and not attack.all():
        said["auc"] = round(float(roc_auc_score(attack, score)), 4)
        for share in (0.01, 0.05):
            bound = np.quantile(score[~attack], 1 - share, method="higher")
            said["recall_at"][f"{share:g}"] = round(float((score[attack] > bound).mean()), 4)
    delays = [
        delay
        for row in rows
        if row.alerted and (delay := _delay(board, row, labels[row.session])) is not None
    ]
    if delays:
        said["delay_calls"] = {"median": float(np.median(delays)), "p90": float(np.percentile(delays, 90))}
        said["at_or_before_first_malicious"] = _rate(np.array(delays) <= 0)
    return said


def _delay(board: Board, row: Row, label: Label) -> int | None:
    """Calls from the first malicious one to the alert; negative where the alert came before it."""
    calls = board.sessions[row.session].calls
    if label.first_malicious not in calls or row.event_id not in calls:
        return None
    return calls.index(row.event_id) - calls.index(label.first_malicious)


def _rate(hits: Any) -> dict[str, Any]:
    """A share with its Wilson interval; all null where there is nothing to count."""
    count, total = int(hits.sum()), len(hits)
    if not total:
        return {"value": None, "low": None, "high": None, "count": 0, "of": 0}
    interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return {
        "value": round(count / total, 4),
        "low": round(float(interval.low), 4),
        "high": round(float(interval.high), 4),
        "count": count,
        "of": total,
    }
