"""Drift: an agent's sessions are no longer what they were, and nobody declared a change.

Each figure of an agent's sessions is watched by ADWIN. A declared change of model, prompt,
tools or policy starts the profile anew and is noted. What moves without one is the finding,
and it names what else changed with it: model, prompt, tools, policy or version.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import polars as pl

from detectors.base import MAX_EVENT_IDS, Batch, Finding
from detectors.calibration import FULL, MAX_AGENTS, SHADOW, stage
from detectors.learner import REBASING, Event, SessionLearner
from detectors.moving import DELTA, Figure
from detectors.sessions import DAY, MAX_LIVE, Live, SessionTable, Who
from detectors.versions import VERSIONS
from detectors.wording import number, plain, short_key, times

FIGURES = {
    "tool_calls": "tool calls per session",
    "model_calls": "model calls per session",
    "errors": "errors per session",
    "output_tokens": "output tokens per model call",
    "input_tokens": "input tokens per model call",
    "output_size": "bytes of output per model call",
    "writing": "share of model calls with output",
    "latency_ms": "milliseconds per model call",
}
PER_CALL = ("output_tokens", "input_tokens", "output_size", "latency_ms")
WRITTEN = PER_CALL.index("output_size")

FAILED = frozenset({"failure", "timeout"})

KEPT = 256
"""Sessions of which provenance is remembered."""

COMPARED = 64
"""Sessions before a change that say what the provenance was."""

NOTABLE = 1.0
"""A figure that moved by this many of its usual units is named beside the one that alarmed."""


class DriftSession(Live, array_like=True, kw_only=True):
    """A live session. ``sums`` holds, for each of ``PER_CALL``, the sum of logarithms and their number."""

    epoch: int = -1
    requested: int = 0
    executed: int = 0
    model_calls: int = 0
    errors: int = 0
    sums: list[list[float]] = msgspec.field(default_factory=list)
    provenance: list[str | None] = msgspec.field(default_factory=list)


class Past(NamedTuple):
    """One ended session: its provenance and its first event."""

    provenance: tuple[str | None, ...]
    first_event: str


class Profile:
    """An agent since its last known change. ``epoch`` counts those changes."""

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.sessions = 0
        self.figures: dict[str, Figure] = {}
        self.past: deque[Past] = deque(maxlen=KEPT)
        self.declared: list[Any] | None = None

    @property
    def stage(self) -> str:
        """How much is known since the last change."""
        return stage(self.sessions)

    def rebase(self) -> None:
        """Start anew: what was usual no longer is."""
        self.epoch += 1
        self.sessions = 0
        self.figures = {}
        self.past.clear()

    def changed(self, since: int) -> dict[str, dict[str, str | None]]:
        """The provenance fields whose commonest value is another in the last ``since`` sessions."""
        past = list(self.past)
        before, after = past[:-since][-COMPARED:], past[-since:]
        found = {}
        for place, name in enumerate(VERSIONS):
            old = _commonest([one.provenance[place] for one in before])
            new = _commonest([one.provenance[place] for one in after])
            if before and old != new:
                found[name] = {"old": old and plain(old), "new": new and plain(new)}
        return found


class Drift(SessionLearner[DriftSession]):
    """Finds agents whose sessions have changed although no change was declared."""

    name = "drift"
    title = "Behaviour drifted, no change declared"
    version = "1"
    state_version = 3
    columns = (
        *("outcome", "error_type", "change_kind", "change_ref"),
        *PER_CALL,
        *VERSIONS,
    )
    tags = ("owasp-asi.2026.asi04", "owasp-asi.2026.asi10")

    def __init__(self, delta: float = DELTA, max_live: int = MAX_LIVE, max_agents: int = MAX_AGENTS) -> None:
        self.delta = delta
        self.max_agents = max_agents
        self.table = SessionTable(DriftSession, max_live)
        self._profiles: OrderedDict[tuple[str, str], Profile] = OrderedDict()

    def read(self, batch: Batch) -> Iterable[tuple[Any, ...]]:
        """The values of ``columns``; of what models wrote only the size is read, in bytes."""
        sized = batch.frame.select(pl.col("model_output").str.len_bytes()).to_series()
        return Batch(batch.frame.with_columns(output_size=sized)).rows(*self.columns)

    def seen(self, live: DriftSession, event: Event, values: tuple[Any, ...]) -> None:
        """Add the event to its session's figures."""
        outcome, error_type = values[:2]
        if live.epoch < 0:
            profile = self._profiles.get(live.who[:2])
            live.epoch = profile.epoch if profile is not None else 0
            live.sums = [[0.0, 0.0] for _ in PER_CALL]
            live.provenance = [None] * len(VERSIONS)
        if event.kind == "model.invoked":
            live.model_calls += 1
            for sums, value in zip(live.sums, values[4:8], strict=True):
                if value is not None and 0 <= value < math.inf:
                    sums[0] += math.log1p(value)
                    sums[1] += 1
        elif event.kind == "tool.requested":
            live.requested += 1
        elif event.kind == "tool.executed":
            live.executed += 1
        if event.kind in {"model.invoked", "task.created"} and None in live.provenance:
            live.provenance = [
                old if old is not None or new is None else short_key(new)
                for old, new in zip(live.provenance, values[8:], strict=True)
            ]
        if (error_type is not None or outcome in FAILED) and event.kind != "task.completed":
            live.errors += 1

    def ended(self, live: DriftSession, row: int) -> Finding | None:
        """Feed the session's figures; the first that alarms is the finding, and all start anew."""
        calls = max(live.requested, live.executed)
        if not calls + live.model_calls:
            return None
        profile = self._profile(live.who)
        if live.epoch != profile.epoch:
            return None
        profile.sessions += 1
        provenance = tuple(live.provenance)
        if profile.past and profile.past[-1].provenance == provenance:
            provenance = profile.past[-1].provenance
        profile.past.append(Past(provenance, live.first_event))
        alarmed = [
            name
            for name, value in _values(live, calls)
            if profile.figures.setdefault(name, Figure(self.delta)).add(value)
        ]
        if not alarmed:
            return None
        found = self._found(live, row, profile, alarmed) if profile.stage != SHADOW else None
        profile.rebase()
        return found

    def declared(self, who: Who, event: Event, values: tuple[Any, ...]) -> None:
        """Note a declared change, and start the profile anew where it explains other behaviour."""
        kind, ref = values[2:4]
        profile = self._profile(who)
        profile.declared = [event.moment, kind, ref and plain(ref)]
        if kind in REBASING:
            profile.rebase()

    def profiles(self) -> list[tuple[str, str, int, str]]:
        """Tenant, agent, sessions since its last change and stage, least recent first."""
        return [(*key, profile.sessions, profile.stage) for key, profile in self._profiles.items()]

    def _profile(self, who: Who) -> Profile:
        profile = self._profiles.get(who[:2])
        if profile is None:
            profile = self._profiles[who[:2]] = Profile()
            if len(self._profiles) > self.max_agents:
                self._profiles.popitem(last=False)
        self._profiles.move_to_end(who[:2])
        return profile

    def _found(self, live: DriftSession, row: int, profile: Profile, alarmed: list[str]) -> Finding:
        since = max(profile.figures[name].since() for name in alarmed)[1]
        moved = {
            name: figure.moved(min(since, len(figure.values) - 1))
            for name, figure in profile.figures.items()
            if len(figure.values) > 1
        }
        first = max(alarmed, key=lambda name: abs(moved[name][2]))
        notable = [name for name in moved if name in alarmed or abs(moved[name][2]) >= NOTABLE]
        changed = profile.changed(since)
        affected = [past.first_event for past in list(profile.past)[-since:]]
        before, after, _ = moved[first]
        return self.finding(
            live,
            row=row,
            level="high" if profile.stage == FULL else "medium",
            reason=(
                f"{FIGURES[first]} went from {number(before)} to {number(after)} in the last "
                f"{times(since, 'session')} of {profile.sessions:,}, without a declared change; "
                f"{_named(changed)}; p ≤ {self.delta:g}"
            ),
            evidence={
                "observed": {FIGURES[name]: round(moved[name][1], 2) for name in notable},
                "expected": {FIGURES[name]: round(moved[name][0], 2) for name in notable},
                "alarmed": alarmed,
                "changed": changed,
                "sessions_since": since,
                "p_value": self.delta,
                "p_value_is": "an upper bound for each figure (ADWIN's delta), not calibrated",
                "declared_change": self._last_declared(profile, live),
                "profile": {"sessions": profile.sessions, "stage": profile.stage},
            },
            event_ids=tuple(affected[:MAX_EVENT_IDS]),
            event_count=len(affected),
            session_id=None,
            parts=("episode", live.first_event),
        )

    def _last_declared(self, profile: Profile, live: DriftSession) -> dict[str, Any] | None:
        if profile.declared is None:
            return None
        moment, kind, ref = profile.declared
        return {"kind": kind, "ref": ref, "days_before": round((live.last_at - moment) / DAY, 2)}

    def state(self) -> dict[str, Any]:
        """Live sessions and profiles as plain data."""
        return {
            "version": self.state_version,
            "table": self.table.state(),
            "profiles": [[*place, _plain(profile)] for place, profile in self._profiles.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``. Raises ValueError where the version is not known."""
        self.checked(state)
        self.table.restore(state["table"])
        self._profiles = OrderedDict(
            ((tenant, agent), _restored(self.delta, plain_profile))
            for tenant, agent, plain_profile in state["profiles"]
        )


def _values(live: DriftSession, calls: int) -> Iterator[tuple[str, float]]:
    """The session's figures as logarithms; a figure that it never showed is left out."""
    for name, count in (("tool_calls", calls), ("model_calls", live.model_calls), ("errors", live.errors)):
        yield name, math.log1p(count)
    for name, (total, shown) in zip(PER_CALL, live.sums, strict=True):
        if shown:
            yield name, total / shown
    if live.model_calls:
        # Calls without output are in no mean of sizes, and how many there are is a habit of the model.
        yield "writing", math.log1p(live.sums[WRITTEN][1] / live.model_calls)


def _commonest(values: Sequence[str | None]) -> str | None:
    counts: dict[str | None, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return max(counts, key=lambda value: counts[value]) if counts else None


def _named(changed: Mapping[str, Mapping[str, str | None]]) -> str:
    if not changed:
        return "no reported version changed with it"
    return "; ".join(
        f"{name} changed from {one['old'] or 'nothing'} to {one['new'] or 'nothing'}"
        for name, one in changed.items()
    )


def _plain(profile: Profile) -> list[Any]:
    """A profile as plain data; each distinct provenance once."""
    kinds = list(dict.fromkeys(past.provenance for past in profile.past))
    places = {kind: place for place, kind in enumerate(kinds)}
    return [
        *(profile.epoch, profile.sessions, profile.declared),
        [[name, figure.state()] for name, figure in profile.figures.items()],
        *([list(kind) for kind in kinds], [[places[p.provenance], p.first_event] for p in profile.past]),
    ]


def _restored(delta: float, state: Sequence[Any]) -> Profile:
    epoch, sessions, declared, figures, kinds, past = state
    profile = Profile(epoch)
    profile.sessions, profile.declared = sessions, declared
    profile.figures = {name: Figure.restored(delta, figure) for name, figure in figures}
    known = [tuple(kind) for kind in kinds]
    profile.past.extend(Past(known[place], first_event) for place, first_event in past)
    return profile
