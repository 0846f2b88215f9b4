"""Rules first, then the learning detectors, over one batch after the other."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePath
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import msgspec
import polars as pl

from detectors.base import LEVELS, Batch, Detector, Finding
from detectors.waiting import Ready, Waiting
from detectors.wording import plain

STATE_VERSION = 1

T = TypeVar("T")

Kept = Detector | Waiting
"""What a snapshot holds."""

How = Literal["process", "at_once", "in_turn"]

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


class Rules(Detector, Protocol):
    """What the rules offer beyond ``Detector``: ``process`` in two parts, for events that wait."""

    columns: tuple[str, ...]
    """The attribute columns that a batch must have."""

    @property
    def version(self) -> str:
        """The rules' hash."""
        ...

    @property
    def patience(self) -> int:
        """Microseconds of silence after which nothing more can be found."""
        ...

    def at_once(self, batch: Batch) -> list[Finding]:
        """Findings of what needs no state."""
        ...

    def in_turn(self, batch: Batch) -> list[Finding]:
        """Findings of what keeps state."""
        ...


@runtime_checkable
class Fitted(Protocol):
    """A detector whose model is fitted outside."""

    def use(self, tenant: str, model: Mapping[str, Any]) -> None:
        """Judge the tenant's sessions by this model from now on."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A detector whose memory is bounded, and that counts what had to give way."""

    @property
    def evicted(self) -> int:
        """Open sessions and groups given up since the process began."""
        ...


class Engine:
    """Every detector over one stream. ``sigma`` judges first, so that learners know what it hit.

    Rules over one event judge it when it comes. Whatever keeps state takes an event whose agent is
    not known yet when its turn has come (``waiting``); ``taken`` holds the events whose turn came
    in the last ``process`` or ``tick``. A revision is no event and is judged by nothing.

    ``started_fresh`` names the detectors for which the last ``restore`` found no usable state.

    No detector's failure stops another. A learner that fails is out of service until the
    engine is built anew, and keeps no state. An event at which the rules fail is skipped by
    them, and by nothing else. ``faults`` says so until ``take_faults`` takes them.
    """

    def __init__(
        self, sigma: Rules | None, learners: Sequence[Detector] = (), waiting: Waiting | None = None
    ) -> None:
        self.sigma = sigma
        self.learners = tuple(learners)
        self.waiting = Waiting(sigma.columns if sigma else ()) if waiting is None else waiting
        self.taken = pl.DataFrame()
        self.started_fresh: tuple[str, ...] = ()
        self.faults: list[tuple[str, str]] = []
        self._profiles: list[dict[str, Any]] = []
        kept: list[Kept] = [*self._detectors(), self.waiting]
        self._blank = {one.name: msgspec.msgpack.encode(one.state()) for one in kept}

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
        if self.waiting.passes(frame):
            found = self._ruled("process", frame)
            ready = Ready(frame, range(frame.height), _serious(found, frame.height))
        else:
            found, ready = self._sorted(frame)
        self.taken = ready.frame
        found = found + self._learned(ready)
        self._profiles = self._profiled()
        return sorted(found, key=_place)

    def _sorted(self, frame: pl.DataFrame) -> tuple[list[Finding], Ready]:
        """The rules' findings on a batch in which events wait or are corrected, and what is ready."""
        rows = (frame.get_column("revision").fill_null(0) <= 0).arg_true().to_list()
        found = [_moved(one, rows) for one in self._ruled("at_once", frame[rows])]
        hits = _serious(found, frame.height)
        try:
            ready = self.waiting.sort(frame, hits)
        except FAILURES as error:
            self._fault(self.waiting.name, error, "the events of a batch were taken as they came")
            ready = Ready(frame[rows], rows, [hits[row] for row in rows])
        return self._in_turn(found, ready)

    def _in_turn(self, found: list[Finding], ready: Ready) -> tuple[list[Finding], Ready]:
        """With the findings of the rules that keep state, and with what they hit."""
        late = self._ruled("in_turn", ready.frame)
        hits = [
            before or now for before, now in zip(ready.hits, _serious(late, ready.frame.height), strict=True)
        ]
        return found + [_moved(one, ready.places) for one in late], replace(ready, hits=hits)

    def _learned(self, ready: Ready) -> list[Finding]:
        batch = Batch(ready.frame, ready.hits)
        found: list[Finding] = []
        for learner in self.learners:
            found += self._served(learner, partial(learner.process, batch))
        return [_moved(one, ready.places) for one in found]

    def _ruled(self, how: How, frame: pl.DataFrame, first: int = 0) -> list[Finding]:
        """The rules' findings; a batch at which they fail is halved until the event is found.

        It relies on a batch that fails leaving no trace in ``sigma``.
        """
        if self.sigma is None:
            return []
        try:
            found: list[Finding] = getattr(self.sigma, how)(Batch(frame))
        except FAILURES as error:
            if frame.height <= 1:
                name = plain(str(frame.get_column("event_id").first())) if frame.height else "none"
                self._fault(self.sigma.name, error, f"event {name} was not judged by the rules")
                return []
            half = frame.height // 2
            return self._ruled(how, frame[:half], first) + self._ruled(how, frame[half:], first + half)
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
        """Event time has reached ``now`` (microseconds): what has waited long enough shows, then
        what silence shows, by detector and id.
        """
        found: list[Finding] = []
        ready = self.waiting.tick(now)
        self.taken = ready.frame if ready else pl.DataFrame()
        if ready:
            found, ready = self._in_turn([], ready)
            found = found + self._learned(ready)
        if self.sigma is not None:
            try:
                found = found + self.sigma.tick(now)
            except FAILURES as error:
                self._fault(self.sigma.name, error, "the tick was skipped")
        for learner in self.learners:
            found = found + self._served(learner, partial(learner.tick, now))
        return sorted(found, key=_place)

    def replace_rules(self, sigma: Rules) -> None:
        """Judge by other rules from here on; rules that did not change go on from what they know."""
        if self.sigma is not None:
            sigma.restore(self.sigma.state())
        self.sigma = sigma
        self.waiting.columns = sigma.columns
        self._blank[sigma.name] = msgspec.msgpack.encode(sigma.state())

    def control(self, record: Mapping[str, Any]) -> None:
        """A decision from the spool. ``kind`` says which; one that no detector needs is passed over."""
        if record.get("kind") == "verdict":
            self.verdict(record)
        elif record.get("kind") == "model":
            for learner in self.learners:
                if isinstance(learner, Fitted):
                    self._served(learner, partial(_fitted, learner, record["tenant"], record["model"]))

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

    def evicted(self) -> int:
        """What all detectors have given up for want of room since the process began."""
        given_up = sum(one.evicted for one in self._detectors() if isinstance(one, Bounded))
        return given_up + self.waiting.evicted

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
            "waiting": self.waiting.state(),
            "rules": self.sigma.version if self.sigma is not None else "",
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
        elif "waiting" in state:
            known = {**known, "waiting": state["waiting"]}
        kept: list[Kept] = [*self._detectors(), *([self.waiting] if "waiting" in state else [])]
        self.started_fresh = tuple(one.name for one in kept if not self._restored(one, known))
        self._profiles = self._profiled()

    def _restored(self, detector: Kept, known: Mapping[str, Any]) -> bool:
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


def _fitted(learner: Fitted, tenant: str, model: Mapping[str, Any]) -> list[None]:
    learner.use(tenant, model)
    return []


def _where(error: BaseException) -> str:
    """What failed and where. Its own words stay out: they may quote what an agent wrote."""
    steps = traceback.extract_tb(error.__traceback__)
    place = f" in {PurePath(steps[-1].filename).name}:{steps[-1].lineno}" if steps else ""
    return f"{type(error).__name__}{place}"


def _serious(found: Sequence[Finding], height: int) -> list[bool]:
    """For each row, whether a finding on it forbids to learn from it."""
    hits = [False] * height
    for finding in found:
        if finding.level in SERIOUS and finding.row >= 0:
            hits[finding.row] = True
    return hits


def _moved(finding: Finding, places: Sequence[int]) -> Finding:
    """The finding with its row taken for an index of ``places``."""
    row = places[finding.row] if finding.row >= 0 else finding.row
    return finding if row == finding.row else msgspec.structs.replace(finding, row=row)


def _place(finding: Finding) -> tuple[int, str, str]:
    return finding.row, finding.detector, finding.finding_id
