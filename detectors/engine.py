"""Rules first, then the learning detectors, over one batch after the other."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec
import polars as pl

from detectors.base import LEVELS, Batch, Detector, Finding
from detectors.wording import plain

STATE_VERSION = 1

T = TypeVar("T")

SERIOUS = frozenset(LEVELS[LEVELS.index("medium") :])
"""Levels of a rule at which nothing is learned from the session."""

MAX_PROFILES = 200

MAX_FAULTS = 100
"""Faults kept until somebody takes them."""

FAILURES = (Exception, pl.exceptions.PanicException)
"""A panic of polars is no Exception, and must end a detector no more than one."""


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

    ``started_fresh`` names the detectors for which the last ``restore`` found no usable state.

    No detector's failure stops another. A learner that fails is out of service until the
    engine is built anew, and keeps no state. An event at which the rules fail is skipped by
    them, and by nothing else. ``faults`` says so until ``take_faults`` takes them.
    """

    def __init__(self, sigma: Detector | None, learners: Sequence[Detector] = ()) -> None:
        self.sigma = sigma
        self.learners = tuple(learners)
        self.started_fresh: tuple[str, ...] = ()
        self.faults: list[tuple[str, str]] = []
        self._profiles: list[dict[str, Any]] = []
        self._blank = {one.name: msgspec.msgpack.encode(one.state()) for one in self._detectors()}

    def take_faults(self) -> list[tuple[str, str]]:
        """What has failed since the last call: the detector's name, and one line without event data."""
        faults, self.faults = self.faults, []
        return faults

    def _fault(self, name: str, error: BaseException, consequence: str) -> None:
        fault = (name, f"{_where(error)}; {consequence}")
        if fault not in self.faults and len(self.faults) < MAX_FAULTS:
            self.faults.append(fault)

    def process(self, frame: pl.DataFrame) -> list[Finding]:
        """Findings of a batch (columns as in ``Batch.frame``), by row, then detector, then id."""
        found = self._ruled(self.sigma, frame) if self.sigma is not None else []
        hits = [False] * frame.height
        for finding in found:
            if finding.level in SERIOUS and finding.row >= 0:
                hits[finding.row] = True
        batch = Batch(frame, hits)
        for learner in self.learners:
            found = found + self._served(learner, partial(learner.process, batch))
        self._profiles = self._profiled()
        return sorted(found, key=_place)

    def _ruled(self, sigma: Detector, frame: pl.DataFrame, first: int = 0) -> list[Finding]:
        """The rules' findings; a batch at which they fail is halved until the event is found.

        It relies on a batch that fails leaving no trace in ``sigma``.
        """
        try:
            found = sigma.process(Batch(frame))
        except FAILURES as error:
            if frame.height <= 1:
                name = plain(str(frame.get_column("event_id").first())) if frame.height else "none"
                self._fault(sigma.name, error, f"event {name} was not judged by the rules")
                return []
            half = frame.height // 2
            return self._ruled(sigma, frame[:half], first) + self._ruled(sigma, frame[half:], first + half)
        return [msgspec.structs.replace(one, row=one.row + first) for one in found] if first else found

    def _served(self, learner: Detector, ask: Callable[[], list[T]]) -> list[T]:
        """What the learner answers; nothing, and never again, where it fails."""
        try:
            return ask()
        except FAILURES as error:
            self._fault(learner.name, error, "out of service until Watchkeeper starts again")
            self.learners = tuple(one for one in self.learners if one is not learner)
            return []

    def tick(self, now: int) -> list[Finding]:
        """Event time has reached ``now`` (microseconds); what silence shows, by detector and id."""
        found: list[Finding] = []
        if self.sigma is not None:
            try:
                found = self.sigma.tick(now)
            except FAILURES as error:
                self._fault(self.sigma.name, error, "the tick was skipped")
        for learner in self.learners:
            found = found + self._served(learner, partial(learner.tick, now))
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
                whose = (record.get("tenant") or "default", str(record.get("agent_id")))
                self._served(learner, partial(_told, learner, *whose, session_id, confirmed))

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
            for tenant, agent_id, sessions, stage in self._served(learner, learner.profiles)[-MAX_PROFILES:]:
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

        So does one whose state is of another version or damaged, and every one where the whole
        state is; ``faults`` then says why.
        """
        known = state.get("detectors")
        if state.get("version") != STATE_VERSION or not isinstance(known, Mapping):
            version = plain(repr(state.get("version")))
            self.faults.append(
                ("engine", f"its state has version {version}, not {STATE_VERSION}; all is fresh")
            )
            known = {}
        self.started_fresh = tuple(one.name for one in self._detectors() if not self._restored(one, known))
        self._profiles = self._profiled()

    def _restored(self, detector: Detector, known: Mapping[str, Any]) -> bool:
        if detector.name in known:
            try:
                detector.restore(known[detector.name])
            except FAILURES as error:
                self._fault(detector.name, error, "its state could not be used and it starts fresh")
            else:
                return True
        detector.restore(msgspec.msgpack.decode(self._blank[detector.name]))
        return False


def _told(learner: Learner, tenant: str, agent_id: str, session_id: str, confirmed: bool) -> list[None]:
    learner.verdict(tenant, agent_id, session_id, confirmed)
    return []


def _where(error: BaseException) -> str:
    """What failed and where. Its own words stay out: they may quote what an agent wrote."""
    steps = traceback.extract_tb(error.__traceback__)
    place = f" in {PurePath(steps[-1].filename).name}:{steps[-1].lineno}" if steps else ""
    return f"{type(error).__name__}{place}"


def _place(finding: Finding) -> tuple[int, str, str]:
    return finding.row, finding.detector, finding.finding_id
