"""Recorded telemetry through the production path, to see what would have alerted and how well."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import polars as pl

from detectors.calibration import Budget
from detectors.engine import Engine
from detectors.evaluate import COMBINED, RULES, Board, Label, measured
from detectors.learner import SessionLearner
from detectors.registry import LEARNERS, learners
from detectors.session_outlier import SessionOutlier, fitted
from detectors.sessions import DAY
from detectors.sigma import RuleSet, SigmaDetector
from monitor.moments import microseconds, rfc3339
from monitor.refit import FEWEST_SESSIONS, MOST_SESSIONS
from monitor.scan import CHUNK, judged
from monitor.settings import Settings
from monitor.sources.file import chunks
from monitor.sources.gate import Rejection

NAMES = (RULES, *LEARNERS)

ATTACKS = frozenset({"attack", "malicious", "succeeded", "1", "true", "positive"})
HARMLESS = frozenset({"harmless", "benign", "resisted_unexposed", "0", "false", "negative"})
"""What a label may be called; a session with any other is judged and left out of the figures."""

LABEL_COLUMNS = ("label", "eval_class")

COLUMNS = ("session_id", "detector", "score", "p_value", "alerted", "first_event_id", "first_event_time")


class LabelsError(Exception):
    """A file of labels that cannot be used; the message says why."""


class _Head(msgspec.Struct):
    session_id: str | None = None
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


def run(
    settings: Settings,
    rules: RuleSet,
    files: Sequence[Path],
    names: Iterable[str],
    rate: float,
    reject: Callable[[Path, Rejection], None],
    progress: Callable[[Path, int], None],
) -> Board:
    """Judge the files with the detectors ``names``, ``rate`` of the harmless sessions to alert at most."""
    chosen = set(names)
    made = learners(rate * 1_000, settings.detection.reading_verbs, chosen)
    board = Board([name for name in NAMES if name in chosen], Budget().shares)
    for learner in made:
        if isinstance(learner, SessionLearner):
            learner.listen = board.score
    refits = [Refits(learner) for learner in made if isinstance(learner, SessionOutlier)]
    engine = Engine(SigmaDetector(rules), made)
    for frame, findings in judged(settings, rules, engine, files, reject, progress):
        if frame is not None:
            board.see(frame)
            for refit in refits:
                refit.see(frame)
        for one in findings:
            if one.detector in chosen:
                board.find(one)
    return board


class Refits:
    """Fits a detector's model anew once a day of the events' own time, as the daemon does from its store.

    Of a tenant's healthy sessions the latest ``MOST_SESSIONS`` count.
    """

    def __init__(self, detector: SessionOutlier) -> None:
        self._detector = detector
        self._figures: dict[str, deque[Sequence[float]]] = {}
        self._day: int | None = None
        detector.collect = self._collect

    def _collect(self, tenant: str, figures: Sequence[float]) -> None:
        self._figures.setdefault(tenant, deque(maxlen=MOST_SESSIONS)).append(figures)

    def see(self, frame: pl.DataFrame) -> None:
        """The events of ``frame`` have been judged; with the first ones of a day comes a fit."""
        latest = frame.get_column("timestamp").to_physical().max()
        assert isinstance(latest, int)
        if self._day is not None and latest // DAY <= self._day:
            return
        self._day = latest // DAY
        for tenant, figures in self._figures.items():
            if len(figures) >= FEWEST_SESSIONS:
                self._detector.use(tenant, fitted(np.array(figures)).state())


def sessions_per_day(files: Iterable[Path], progress: Callable[[Path, int], None]) -> float:
    """How many sessions the files hold for each day that they span."""
    decoder = msgspec.json.Decoder(_Head)
    seen: set[str] = set()
    span: tuple[int, int] | None = None
    for file in files:
        for chunk in chunks(file, CHUNK):
            for line in chunk.lines:
                try:
                    head = decoder.decode(line)
                except (msgspec.DecodeError, UnicodeError):
                    continue  # the run itself says what is wrong with it
                if head.session_id and head.timestamp:
                    seen.add(head.session_id)
                    at = microseconds(head.timestamp)
                    first, last = span or (at, at)
                    span = min(first, at), max(last, at)
            progress(file, chunk.behind)
    return len(seen) / max(1.0, (span[1] - span[0]) / DAY) if span else 0.0


def read_labels(file: Path) -> dict[str, Label]:
    """Labels by session from a CSV file, gzip too. Raises LabelsError."""
    try:
        raw = file.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise LabelsError(f"{file}: {error}") from None
    lines = csv.DictReader(io.StringIO(text))
    names = lines.fieldnames or ()
    column = next((name for name in LABEL_COLUMNS if name in names), None)
    if column is None or "session_id" not in names:
        raise LabelsError(
            f"{file}: the first line must name session_id and label; it names {', '.join(names) or 'nothing'}"
        )
    found = {}
    for line in lines:
        label = (line[column] or "").strip().lower()
        if label in ATTACKS or label in HARMLESS:
            found[line["session_id"]] = Label(label in ATTACKS, line.get("first_malicious_event_id") or "")
    if not found:
        raise LabelsError(
            f"{file}: no label is one of {', '.join(sorted(ATTACKS))} or {', '.join(sorted(HARMLESS))}"
        )
    return found


def report(
    board: Board, rate: float, since: int, seconds: float, labels: Mapping[str, Label] | None
) -> dict[str, Any]:
    """What ``backtest --json`` prints; alerts count once per session and detector."""
    alerts = board.alerts(since)
    days = board.days(since)
    together = [agent for detector, agent, _ in alerts if detector == COMBINED]
    counted = [session for session in board.sessions.values() if session.start >= since]
    said: dict[str, Any] = {
        "events": board.events,
        "sessions": len(board.sessions),
        "sessions_counted": len(counted),
        "days": round(days, 2),
        "seconds": round(seconds, 2),
        "warm_up_until": rfc3339(since) if since else None,
        "false_alert_rate": rate,
        "alerts": {
            "sessions": len(together),
            "per_day": round(len(together) / days, 2),
            "by_detector": {
                name: sum(detector == name for detector, _, _ in alerts) for name in board.detectors
            },
            "by_agent": dict(Counter(together).most_common()),
        },
        "labels": None,
    }
    if labels is not None:
        known = [
            name for name, session in board.sessions.items() if session.start >= since and name in labels
        ]
        said["labels"] = {
            "attacks": sum(labels[name].attack for name in known),
            "harmless": sum(not labels[name].attack for name in known),
            "left_out": len(counted) - len(known),
            "detectors": measured(board, labels, since),
        }
    return said


def write_scores(board: Board, file: Path) -> None:
    """One line per session and detector."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        lines = csv.writer(opened)
        lines.writerow(COLUMNS)
        for row in board.rows():
            lines.writerow(
                (
                    row.session, row.detector, f"{row.score:.6f}", f"{row.p_value:.6g}",
                    "true" if row.alerted else "false", row.event_id, rfc3339(row.timestamp),
                )
            )  # fmt: skip
