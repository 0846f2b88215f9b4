"""Judge recorded files with no daemon: the same gate, deduplication, rules and detectors.

Time is that of the events. While there are events, they move the detectors' own clocks; ticks
in between would measure silence by the size of a chunk. When the files end, two ticks say that
nothing more came for longer than a session may be silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from detectors.base import Batch, Finding
from detectors.engine import Engine
from detectors.registry import learners
from detectors.sessions import MINUTE, QUIET, event_time
from detectors.sigma import RuleSet, SigmaDetector
from monitor.events import arrow_batch
from monitor.frames import to_frame
from monitor.moments import rfc3339
from monitor.settings import Settings
from monitor.sources.anyjson import AnyJson
from monitor.sources.file import chunks
from monitor.sources.gate import Gate, Rejected, Rejection
from monitor.sources.keys import Sender
from monitor.sources.seen import Seen

CHUNK = 5_000
SCANNER = Sender(key_id="scan", tenant="default", agents=(), scopes=frozenset({"ingest"}), replaying=False)


def scan(
    settings: Settings,
    rules: RuleSet,
    files: Iterable[Path],
    reject: Callable[[Path, Rejection], None],
    progress: Callable[[Path, int], None],
    learn: bool = True,
) -> Iterator[Finding]:
    """Findings in the order of events. Refused lines go to ``reject``, their number as index.

    Raises RuntimeError at the end where a detector failed on the way.
    """
    detection = settings.detection
    made = learners(detection.false_alerts_per_1000_sessions, detection.reading_verbs) if learn else ()
    engine = Engine(SigmaDetector(rules), made)
    for _, findings in judged(settings, rules, engine, files, reject, progress):
        yield from findings


def judged(
    settings: Settings,
    rules: RuleSet,
    engine: Engine,
    files: Iterable[Path],
    reject: Callable[[Path, Rejection], None],
    progress: Callable[[Path, int], None],
) -> Iterator[tuple[pl.DataFrame | None, list[Finding]]]:
    """Batches of events with their findings, and at the end what shows only by silence, with None.

    A repeated event is judged once; one with the id of another and different content is marked
    and judged, as in the daemon. Raises RuntimeError at the end where a detector failed on the way.
    """
    gate = Gate(settings.edge)
    seen = Seen()
    latest: int | None = None
    for file in files:
        for chunk in chunks(file, CHUNK):
            records = []
            for item, number in zip(chunk.lines, chunk.numbers, strict=True):
                try:
                    record = gate.check(item, SCANNER)
                    # In a file an event's own time is all that says when it came.
                    record.ingested_at = min(record.timestamp, record.ingested_at)
                    records.append(record)
                except Rejected as fault:
                    reject(file, fault.at(number))
            fresh = seen.sort(records).fresh
            seen.settle()
            if fresh:
                frame = to_frame(arrow_batch(fresh), rules.attribute_keys)
                yield frame, engine.process(frame)
                times = frame.select("timestamp", "ingested_at").cast(pl.Int64).iter_rows()
                latest = max(event_time(*pair) for pair in (*([(latest, None)] if latest else []), *times))
            progress(file, chunk.behind)
    if latest is not None:
        patience = engine.sigma.patience if engine.sigma is not None else 0
        for now in (latest, latest + max(QUIET + MINUTE, patience)):
            yield None, engine.tick(now)
    if faults := engine.take_faults():
        raise RuntimeError("; ".join(f"{name}: {fault}" for name, fault in faults))


def scan_any(
    rules: RuleSet,
    files: Iterable[Path],
    reject: Callable[[Path, Rejection], None],
    progress: Callable[[Path, int], None],
) -> Iterator[Finding]:
    """What the rules alone find in files of any JSON objects (`AnyJson`), in the order of events.

    Every line counts, the second of two equal ones as well.
    """
    detector = SigmaDetector(rules)
    latest: int | None = None
    for file in files:
        reader = AnyJson(file.name, detector.reads, rules.attribute_keys)
        for chunk in chunks(file, CHUNK):
            frame, rejections = reader.frame(chunk.lines, chunk.numbers)
            for rejection in rejections:
                reject(file, rejection)
            if not frame.is_empty():
                yield from detector.process(Batch(frame))
                last = frame.get_column("timestamp").to_physical().max()
                assert isinstance(last, int)
                latest = last if latest is None else max(latest, last)
            progress(file, chunk.behind)
    if latest is not None:
        for now in (latest, latest + detector.patience):
            yield from detector.tick(now)


def as_match(finding: Finding) -> dict[str, Any]:
    """A finding as ``scan --json`` prints it, one object a line."""
    return {
        "rule_id": finding.rule_id,
        "title": finding.title,
        "level": finding.level,
        "event_ids": list(finding.event_ids),
        "group": finding.group,
        "timestamp": rfc3339(finding.timestamp),
        "detector": finding.detector,
        "agent_id": finding.agent_id,
        "session_id": finding.session_id,
        "reason": finding.reason,
    }
