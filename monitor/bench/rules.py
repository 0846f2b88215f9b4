"""Rules over recorded events, from JSON bytes to matches, on one core."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monitor.bench.apart import answer, apart

PASSES = 3
"""Times the file is judged; the first fills the automata and is not counted."""


def bench_rules(rules: Sequence[Path], events: Path, batch: int, lists: dict[str, Any]) -> dict[str, Any]:
    """Runs the measurement in a process of its own that has one core and one thread of polars.

    Raises RuntimeError with what the process said where it fails.
    """
    wanted = {"rules": list(map(str, rules)), "events": str(events), "batch": batch, "lists": lists}
    found: dict[str, Any] = apart(__name__, wanted)
    return found


def measure(rules: Sequence[Path], events: Path, batch: int, lists: dict[str, Any]) -> dict[str, Any]:
    """Events per second and time per batch over all passes that count."""
    from detectors.base import Batch
    from detectors.sigma import SigmaDetector, load_rules
    from monitor.events import rule_fields
    from monitor.processes.common import calm
    from monitor.sources.anyjson import AnyJson

    loaded = load_rules(rules, rule_fields(), lists)
    detector = SigmaDetector(loaded)
    batches = list(_batches(events, batch))
    if not batches:
        raise RuntimeError(f"{events}: no events")
    blank = detector.state()
    calm()
    times: list[float] = []
    matches = 0
    for turn in range(PASSES):
        detector.restore(blank)
        reader = AnyJson(events.name, detector.reads, loaded.attribute_keys)
        for lines in batches:
            begun = time.perf_counter()
            frame, _ = reader.frame(lines, range(len(lines)))
            found = detector.process(Batch(frame))
            if turn:
                times.append((time.perf_counter() - begun) * 1000)
                matches += len(found)
    judged = sum(map(len, batches)) * (PASSES - 1)
    whole = [took for took, lines in zip(times, batches * (PASSES - 1), strict=True) if len(lines) == batch]
    p50, p95 = np.percentile(whole or times, [50, 95])
    return {
        "rules": sum(rule.generate for rule in loaded.rules),
        "events": judged,
        "matches": matches,
        "events_per_second": round(judged / (sum(times) / 1000)),
        "batch_ms": {"p50": round(float(p50), 3), "p95": round(float(p95), 3)},
    }


def _batches(file: Path, size: int) -> Iterator[list[bytes]]:
    """Batches of exactly ``size`` lines, but for the last."""
    from monitor.sources.file import chunks

    waiting: list[bytes] = []
    for chunk in chunks(file, size):
        waiting += chunk.lines
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting:
        yield waiting


if __name__ == "__main__":
    answer(
        lambda asked: measure(
            [*map(Path, asked["rules"])], Path(asked["events"]), asked["batch"], asked["lists"]
        )
    )
