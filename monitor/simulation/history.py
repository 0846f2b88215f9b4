"""Two weeks of the fleet's past, as NDJSON, so that the detectors know it when the demo starts.

Agents work in bursts, as real ones do: an inbox is worked through, then there is nothing
for hours. Inside a burst the pace is that of the live fleet.
"""

from __future__ import annotations

import gzip
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from monitor.simulation.agent import uuid7
from monitor.simulation.plan import Member, Plan
from monitor.simulation.sessions import Session, healthy_session

DAYS = 14
QUIET = timedelta(minutes=5)
"""The history ends this long before its end, so that the live fleet begins after it."""

BURST, FAST_BURST = 8, 24
"""Mean number of sessions worked through in one go."""


@dataclass(frozen=True)
class Counts:
    """What was written."""

    events: int
    sessions: int
    agents: int


def write_history(plan: Plan, end: datetime, file: Path) -> Counts:
    """Write the fleet's past up to ``end`` (UTC) to ``file`` as gzipped NDJSON, in time order."""
    streams = [_member_events(member, plan.seed, end) for member in plan.members if member.history]
    encoder = msgspec.json.Encoder()
    events = 0
    with gzip.open(file, "wb", compresslevel=1) as sink:
        for _, _, event in heapq.merge(*streams, key=lambda item: item[:2]):
            sink.write(encoder.encode(event) + b"\n")
            events += 1
    agents = [member for member in plan.members if member.history]
    return Counts(events, sum(member.history for member in agents), len(agents))


def _member_events(
    member: Member, seed: int, end: datetime
) -> Iterator[tuple[datetime, str, dict[str, Any]]]:
    rng = Random(f"{seed}/history/{member.agent_id}")  # noqa: S311 - a simulation
    starts = _starts(member, rng, end)
    rows: list[tuple[datetime, str, dict[str, Any]]] = []
    change = round(member.history * member.changed_at) if member.before else -1
    columns = member.agent.columns()
    free = starts[0]
    for number, due in enumerate(starts):
        agent = member.before if member.before and number < change else member.agent
        start = max(due, free + timedelta(seconds=60 if number == change else 1))
        if number == change:
            rows.append(_row(rng, start - timedelta(seconds=30), {**columns, **_declared(member)}))
        session = healthy_session(agent, rng)
        rows.extend(_stamped(session, start, columns, rng))
        free = start + timedelta(seconds=session.seconds())
    return iter(rows)


def _stamped(
    session: Session, start: datetime, columns: dict[str, Any], rng: Random
) -> Iterator[tuple[datetime, str, dict[str, Any]]]:
    moment = start
    instance = f"{columns['agent_id']}-{start:%m%d}"
    for step in session.steps:
        moment += timedelta(seconds=step.delay)
        for index, event in enumerate(step.events):
            known = {**columns, "agent_instance_id": instance, "session_id": session.session_id, **event}
            yield _row(rng, moment + timedelta(microseconds=index), known)


def _row(rng: Random, moment: datetime, event: dict[str, Any]) -> tuple[datetime, str, dict[str, Any]]:
    event_id = uuid7(int(moment.timestamp() * 1_000), rng.getrandbits(74))
    return moment, event_id, {"event_id": event_id, "timestamp": moment, **event}


def _declared(member: Member) -> dict[str, Any]:
    provider, model_id, version = member.agent.model
    return {
        "event_type": "change.declared",
        "change_kind": "model",
        "change_ref": f"release-{member.agent.version}",
        "initiator_type": "system",
        "initiator_id": "release-pipeline",
        "model_provider": provider,
        "model_id": model_id,
        "model_version": version,
    }


def _starts(member: Member, rng: Random, end: datetime) -> list[datetime]:
    """When the past sessions began, in order: bursts within working hours, fewer at weekends."""
    last = end.astimezone(UTC) - QUIET
    mean = FAST_BURST if member.agent.role.fast else BURST
    starts: list[datetime] = []
    while len(starts) < member.history:
        moment = last - _working_time(rng, last)
        for _ in range(1 + round(rng.expovariate(1 / mean))):
            run = rng.uniform(0.8, 1.6) if member.agent.role.fast else rng.uniform(4, 9)
            moment += timedelta(seconds=rng.uniform(*member.pause) + run)
            if moment < last - timedelta(minutes=3) and len(starts) < member.history:
                starts.append(moment)
    return sorted(starts)


def _working_time(rng: Random, last: datetime) -> timedelta:
    """How long before ``last`` a burst begins.

    The company works around the hour at which the demo runs, whatever the machine's
    clock says: nobody sees the demo as work at night.
    """
    while True:
        back = timedelta(days=rng.randrange(DAYS), hours=rng.triangular(-5.5, 4.0, 0.0))
        if back < timedelta(minutes=20):
            continue
        if (last - back).weekday() < 5 or rng.random() < 0.4:
            return min(back, timedelta(days=DAYS))
