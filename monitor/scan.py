"""Judge recorded files with no daemon: the same gate, rules and detectors, other ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from detectors.engine import Engine
from detectors.registry import learners

from detectors.base import Finding
from detectors.sigma import RuleSet, SigmaDetector
from monitor.events import arrow_batch
from monitor.frames import to_frame
from monitor.settings import Settings
from monitor.sources.file import chunks
from monitor.sources.gate import Gate, Rejected, Rejection
from monitor.sources.keys import Sender

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
    """Findings in the order of events. Lines that the gate refuses go to ``reject``."""
    engine = Engine(
        SigmaDetector(rules),
        learners(settings.detection.false_alerts_per_1000_sessions) if learn else (),
    )
    gate = Gate(settings.edge)
    for file in files:
        line = 0
        for lines, behind in chunks(file, CHUNK):
            records = []
            for item in lines:
                try:
                    records.append(gate.check(item, SCANNER))
                except Rejected as fault:
                    reject(file, fault.at(line))
                line += 1
            if records:
                yield from engine.process(to_frame(arrow_batch(records), rules.attribute_keys))
            progress(file, behind)


def as_match(finding: Finding) -> dict[str, Any]:
    """A finding as ``scan --json`` prints it, one object a line."""
    moment = datetime.fromtimestamp(finding.timestamp / 1e6, UTC)
    return {
        "rule_id": finding.rule_id,
        "title": finding.title,
        "level": finding.level,
        "event_ids": list(finding.event_ids),
        "group": finding.group,
        "timestamp": moment.isoformat().replace("+00:00", "Z"),
        "detector": finding.detector,
        "agent_id": finding.agent_id,
        "session_id": finding.session_id,
        "reason": finding.reason,
    }
