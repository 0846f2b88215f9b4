"""The one evaluator: rules first, then the learners, over events in spool order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from detectors.base import LEVELS, Batch, Detector, Finding

VERSION = 1
MEDIUM = LEVELS.index("medium")


class Engine:
    """Live, replay, scan and back-test judge with this, with other sources and sinks."""

    def __init__(self, sigma: Detector, learners: Sequence[Detector]) -> None:
        self.sigma = sigma
        self.learners = tuple(learners)

    def process(self, frame: pl.DataFrame) -> list[Finding]:
        """Judge a batch; findings in row order, then by detector and id."""
        found = self.sigma.process(Batch(frame))
        hits = [False] * frame.height
        for finding in found:
            if LEVELS.index(finding.level) >= MEDIUM:
                hits[finding.row] = True
        batch = Batch(frame, hits)
        for learner in self.learners:
            found += learner.process(batch)
        return sorted(found, key=lambda finding: (finding.row, finding.detector, finding.finding_id))

    def tick(self, now: int) -> list[Finding]:
        """Time has reached ``now`` (microseconds)."""
        return [finding for detector in (self.sigma, *self.learners) for finding in detector.tick(now)]

    def control(self, record: Mapping[str, Any]) -> None:
        """A decision from the spool."""

    def profiles(self) -> list[dict[str, Any]]:
        """What the learners know of each agent."""
        return []

    def state(self) -> dict[str, Any]:
        """Plain data of every detector."""
        return {"version": VERSION, "detectors": {d.name: d.state() for d in (self.sigma, *self.learners)}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``. Raises ValueError where the version is not known."""
        if state["version"] != VERSION:
            raise ValueError(f"engine state has version {state['version']!r}, not {VERSION}")
        for detector in (self.sigma, *self.learners):
            if detector.name in state["detectors"]:
                detector.restore(state["detectors"][detector.name])
