"""The learning detectors over recorded or simulated events, with learning, on one core."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from monitor.bench.apart import answer, apart

BATCH = 5_000
PASSES = 3
"""Each pass begins with fresh detectors; the fastest counts."""

BY_CALL = ("provenance", "tool_sequence")
"""Detectors that judge calls; the others are counted by events."""

TOGETHER = "provenance+tool_sequence"


def bench_detectors(events: Path | None) -> dict[str, Any]:
    """Runs the measurement in a process of its own that has one core and one thread of polars.

    Raises RuntimeError with what the process said where it fails.
    """
    found: dict[str, Any] = apart(__name__, str(events) if events else None)
    return found


def measure(frames: Sequence[pl.DataFrame]) -> dict[str, dict[str, Any]]:
    """Calls or events per second of processor time, and kilobytes of saved state for each agent."""
    from detectors.registry import LEARNERS
    from monitor.processes.common import calm

    events = sum(frame.height for frame in frames)
    calls = sum(int((frame["event_type"] == "tool.requested").sum()) for frame in frames)
    agents = pl.concat([frame.select("tenant", "agent_id") for frame in frames]).n_unique()
    calm()
    found = {}
    for name in (*LEARNERS, TOGETHER):
        names = BY_CALL if name == TOGETHER else (name,)
        count = calls if names[0] in BY_CALL else events
        seconds, size = min(_pass(frames, names) for _ in range(PASSES))
        found[name] = {
            "per_second": round(count / seconds),
            "unit": "calls" if names[0] in BY_CALL else "events",
            "state_kb_per_agent": round(size / 1_000 / agents, 1),
        }
    return found


def _pass(frames: Sequence[pl.DataFrame], names: Sequence[str]) -> tuple[float, int]:
    """Seconds for all frames, and bytes of state at the end."""
    from detectors.base import Batch
    from detectors.calibration import Budget
    from detectors.registry import LEARNERS

    learners = [LEARNERS[name](Budget()) for name in names]
    begun = time.process_time()
    for frame in frames:
        batch = Batch(frame)
        for learner in learners:
            learner.process(batch)
    seconds = time.process_time() - begun
    return seconds, sum(len(msgspec.msgpack.encode(learner.state())) for learner in learners)


def _frames(file: Path | None) -> list[pl.DataFrame]:
    from monitor.bench.sample import event_bodies, repeated
    from monitor.events import arrow_batch
    from monitor.frames import to_frame
    from monitor.scan import SCANNER
    from monitor.settings import EdgeSettings
    from monitor.sources.file import chunks
    from monitor.sources.gate import Gate

    gate = Gate(EdgeSettings())
    if file is None:
        bodies = event_bodies(BATCH)
        lots = [body.split(b"\n") for body in repeated(bodies, 100_000, BATCH)]
    else:
        lots = [chunk.lines for chunk in chunks(file, BATCH)]
    frames = []
    for lines in lots:
        records = [gate.check(line, SCANNER) for line in lines]
        for record in records:
            record.ingested_at = min(record.timestamp, record.ingested_at)
        frames.append(to_frame(arrow_batch(records)))
    return frames


if __name__ == "__main__":
    answer(lambda asked: measure(_frames(Path(asked) if asked else None)))
