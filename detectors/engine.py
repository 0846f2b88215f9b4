"""Rules first, then the learning detectors, over one batch after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import polars as pl

from detectors.base import LEVELS, Batch, Detector, Finding

STATE_VERSION = 1

SERIOUS = frozenset(LEVELS[LEVELS.index("medium") :])
"""Levels of a rule at which nothing is learned from the session."""

MAX_PROFILES = 200


@runtime_checkable
class Learner(Protocol):
    """What a learning detector offers beyond ``Detector``."""

    name: str

    def verdict(self, tenant: str, agent_id: str, session_id: str, confirmed: bool) -> None:
        """An analyst has judged an alert about the session."""
        ...

    def profiles(self) -> list[tuple[str, str, int, str]]:
        """Tenant, agent, sessions and stage of each known agent, least recent first."""
        ...


class Engine:
    """Every detector over one stream. ``sigma`` judges first, so that learners know what it hit.

    ``started_fresh`` names the detectors for which the last ``restore`` found no state.
    """

    def __init__(self, sigma: Detector | None, learners: Sequence[Detector] = ()) -> None:
        self.sigma = sigma
        self.learners = tuple(learners)
        self.started_fresh: tuple[str, ...] = ()
        self._profiles: list[dict[str, Any]] = []

    def process(self, frame: pl.DataFrame) -> list[Finding]:
        """Findings of a batch (columns as in ``Batch.frame``), by row, then detector, then id."""
        found = self.sigma.process(Batch(frame)) if self.sigma is not None else []
        hits = [False] * frame.height
        for finding in found:
            if finding.level in SERIOUS and finding.row >= 0:
                hits[finding.row] = True
        batch = Batch(frame, hits)
        for learner in self.learners:
            found = found + learner.process(batch)
        self._profiles = self._profiled()
        return sorted(found, key=_place)

    def tick(self, now: int) -> list[Finding]:
        """Event time has reached ``now`` (microseconds); what silence shows, by detector and id."""
        found = [finding for detector in self._detectors() for finding in detector.tick(now)]
        return sorted(found, key=_place)

    def control(self, record: Mapping[str, Any]) -> None:
        """A decision from the spool. ``kind`` says which; one that no detector needs is passed over."""
        if record.get("kind") == "verdict":
            self.verdict(record)

    def verdict(self, record: Mapping[str, Any]) -> None:
        """An analyst's verdict (TRIAGE) on the alert ``rule_id`` of a session of an agent.

        A confirmed attack concerns every learner, whoever found it. A false alarm concerns
        only the one that raised it: that a rule was wrong says nothing about a learner.
        """
        confirmed, session_id = record.get("verdict") == "true_positive", record.get("session_id")
        if session_id is None or not (confirmed or record.get("verdict") == "false_positive"):
            return
        for learner in self.learners:
            if isinstance(learner, Learner) and (
                confirmed or record.get("rule_id") == f"learned.{learner.name}"
            ):
                learner.verdict(
                    record.get("tenant") or "default", str(record.get("agent_id")), session_id, confirmed
                )

    def profiles(self) -> list[dict[str, Any]]:
        """What is known of the latest agents, as of the last batch; may be called from any thread.

        One entry an agent: ``agent_id``, ``tenant``, ``sessions``, ``stage`` (both of the
        detector that knows most), and ``detectors``: the sessions that each detector knows.
        """
        return self._profiles

    def _profiled(self) -> list[dict[str, Any]]:
        known: dict[tuple[str, str], dict[str, Any]] = {}
        for learner in self.learners:
            if not isinstance(learner, Learner):
                continue
            for tenant, agent_id, sessions, stage in learner.profiles()[-MAX_PROFILES:]:
                entry = known.setdefault(
                    (tenant, agent_id),
                    {"agent_id": agent_id, "tenant": tenant, "sessions": 0, "stage": stage, "detectors": {}},
                )
                entry["detectors"][learner.name] = sessions
                if sessions > entry["sessions"]:
                    entry["sessions"], entry["stage"] = sessions, stage
        return [known[place] for place in sorted(known)]

    def _detectors(self) -> list[Detector]:
        return [*([self.sigma] if self.sigma is not None else []), *self.learners]

    def state(self) -> dict[str, Any]:
        """The state of every detector under its name."""
        return {
            "version": STATE_VERSION,
            "detectors": {detector.name: detector.state() for detector in self._detectors()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``; a detector that it does not know starts fresh and is named.

        Raises ValueError where the version, or that of a detector, is not known.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(f"state of the engine has version {state.get('version')!r}, not {STATE_VERSION}")
        known = state["detectors"]
        for detector in self._detectors():
            if detector.name in known:
                detector.restore(known[detector.name])
        self.started_fresh = tuple(one.name for one in self._detectors() if one.name not in known)
        self._profiles = self._profiled()


def _place(finding: Finding) -> tuple[int, str, str]:
    return finding.row, finding.detector, finding.finding_id
