"""The stories judged without a daemon, in accelerated event time: a tuning aid and a floor.

The history and the live sessions of a seed go through the same engine as in the daemon.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detectors.base import Finding
from detectors.engine import Engine
from detectors.registry import learners
from detectors.sigma import SigmaDetector, load_rules
from monitor.events import REPLAYED, Record, arrow_batch, rule_fields
from monitor.frames import to_frame
from monitor.settings import DetectionSettings, shipped_rules
from monitor.simulation import stories
from monitor.simulation.catch import SERIOUS, Catch, caught
from monitor.simulation.history import write_history
from monitor.simulation.plan import Plan, make_plan
from monitor.simulation.site import Telling
from monitor.sources.file import chunks

END = datetime(2026, 3, 18, 15, 30, tzinfo=UTC)
START = END + timedelta(minutes=1)
LIVE_SECONDS = 110.0
"""A little less than the demo waits."""


def micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def live(plan: Plan) -> tuple[list[Any], dict[str, Telling]]:
    """The fleet's first minutes as events in time order, and where each story begins."""
    rows: list[tuple[datetime, dict[str, Any]]] = []
    tellings: dict[str, Telling] = {}
    for member in plan.members:
        at = START
        for session in member.sessions:
            at += timedelta(seconds=session.pause)
            for step in session.steps:
                at += timedelta(seconds=step.delay)
                for index, event in enumerate(step.events):
                    event_id = f"{session.session_id}-{len(rows)}"
                    known = {**member.agent.columns(), **event, "event_id": event_id, "timestamp": at}
                    rows.append(
                        (at + timedelta(microseconds=index), known | {"session_id": session.session_id})
                    )
                    if step.telling == index and session.story:
                        tellings[session.story] = Telling(
                            session.story, member.agent_id, session.session_id, event_id, micros(at)
                        )
    rows.sort(key=lambda row: row[0])
    known_by_daemon = {"tenant": "default", "identity": "declared"}
    events = [
        msgspec.convert({**event, **known_by_daemon, "ingested_at": at}, Record)
        for at, event in rows
        if at < START + timedelta(seconds=LIVE_SECONDS)
    ]
    return events, tellings


def history(plan: Plan, file: Path) -> Iterator[list[Any]]:
    """The past, as the edge would have written it down: marked, and received just now."""
    write_history(plan, END, file)
    decoder = msgspec.json.Decoder(Record)
    for lines, _, _ in chunks(file, 500):
        records = [decoder.decode(line) for line in lines]
        for record in records:
            record.tenant, record.identity, record.ingested_at = "default", "declared", END
            record.attributes = {**(record.attributes or {}), REPLAYED: "true"}
        yield records


@dataclass
class Run:
    """What one seed gave."""

    plan: Plan
    live: list[Finding]
    caught: dict[str, Catch]


@lru_cache
def run_of(seed: int, folder: Path) -> Run:
    """Judge history and live sessions of ``seed``."""
    rules = load_rules([shipped_rules()], rule_fields())
    engine = Engine(SigmaDetector(rules), learners(DetectionSettings().false_alerts_per_1000_sessions))
    plan = make_plan(seed)
    for records in history(plan, folder / f"history-{seed}.gz"):
        engine.process(to_frame(arrow_batch(records), rules.attribute_keys))
    events, tellings = live(plan)
    stream = iter(events)
    found: list[Finding] = []
    while batch := list(islice(stream, 20)):
        found += engine.process(to_frame(arrow_batch(batch), rules.attribute_keys))
        found += engine.tick(micros(batch[-1].timestamp))
    alerts = [as_alert(finding) for finding in found]
    catches = {name: catch for name, told in tellings.items() if (catch := caught(told, alerts))}
    return Run(plan, found, catches)


def as_alert(finding: Finding) -> dict[str, Any]:
    """A finding as the alert it becomes at once."""
    plain = msgspec.structs.asdict(finding)
    return plain | {"id": finding.finding_id, "created_at": finding.timestamp}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stories")


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("story", stories.STORIES)
def test_the_story_is_caught(seed: int, story: str, folder: Path) -> None:
    run = run_of(seed, folder)
    assert story in run.caught, [f.title for f in run.live if f.agent_id == run.plan.teller(story).agent_id]


@pytest.mark.parametrize("seed", [1, 2])
def test_no_healthy_agent_is_accused(seed: int, folder: Path) -> None:
    run = run_of(seed, folder)
    healthy = {member.agent_id for member in run.plan.healthy}
    assert [f.reason for f in run.live if f.agent_id in healthy and f.level in SERIOUS] == []
