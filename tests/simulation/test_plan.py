from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from monitor.events import Record
from monitor.simulation import stories
from monitor.simulation.history import write_history
from monitor.simulation.plan import Plan, make_plan
from monitor.simulation.sessions import Session
from monitor.sources.file import chunks

SEEDS = range(1, 21)
END = datetime(2026, 3, 18, 15, 30, tzinfo=UTC)


plan_of = lru_cache(make_plan)


def denies(session: Session) -> int:
    return sum(event.get("policy_decision") == "deny" for event in session.events())


def live_events(plan: Plan) -> list[dict[str, Any]]:
    return [
        {**member.agent.columns(), "timestamp": END, "session_id": session.session_id, **event}
        for member in plan.members
        for session in member.sessions
        for event in session.events()
    ]


def history_of(plan: Plan, file: Path) -> list[Any]:
    write_history(plan, END, file)
    decoder = msgspec.json.Decoder(Record)
    return [decoder.decode(line) for lines, _, _ in chunks(file, 1_000) for line in lines]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_seed_gives_the_same_plan(seed: int) -> None:
    assert live_events(plan_of(seed)) == live_events(make_plan(seed))


def test_another_seed_gives_another_story() -> None:
    casts = {tuple(plan_of(seed).teller(story).agent_id for story in stories.STORIES) for seed in SEEDS}
    assert len(casts) == len(SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_live_event_fits_the_schema(seed: int) -> None:
    for event in live_events(plan_of(seed)):
        msgspec.convert(event, Record)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fleet_has_six_roles_a_newcomer_a_chatty_agent_and_all_stories(seed: int) -> None:
    plan = plan_of(seed)
    parts = Counter(member.part for member in plan.members)
    assert len({member.agent.role.name for member in plan.members}) >= 6
    assert len({member.agent_id for member in plan.members}) == len(plan.members)
    assert (parts["new"], parts["chatty"], parts["declared"]) == (1, 1, 1)
    assert len(plan.healthy) >= 4
    assert sorted(m.story for m in plan.members if m.story) == sorted(stories.STORIES)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_session_is_blocked_now_and_then_but_never_five_times(seed: int) -> None:
    plan = plan_of(seed)
    healthy = [s for member in plan.members for s in member.sessions if s.story in (None, stories.MODEL)]
    assert max(denies(session) for session in healthy) < 5
    assert 0.005 < sum(denies(session) > 0 for session in healthy) / len(healthy) < 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_blocked_agent_is_denied_six_to_twelve_times(seed: int) -> None:
    member = plan_of(seed).teller(stories.BLOCKS)
    (session,) = [s for s in member.sessions if s.story]
    assert 6 <= denies(session) <= 12
    assert session.seconds() < 60


@pytest.mark.parametrize("seed", SEEDS)
def test_the_leak_begins_when_the_secret_is_asked_for_after_the_injected_text(seed: int) -> None:
    (session,) = [s for s in plan_of(seed).teller(stories.SECRET).sessions if s.story]
    (told,) = [index for index, step in enumerate(session.steps) if step.telling is not None]
    first = session.steps[told].events[session.steps[told].telling or 0]
    before = [event for step in session.steps[:told] for event in step.events]
    after = [event for step in session.steps[told:] for event in step.events]
    assert any(
        "https://" in event.get("tool_result", "") or "@" in event.get("tool_result", "") for event in before
    )
    assert (first["event_type"], first["data_classification"]) == ("tool.requested", "restricted")
    assert any(e["event_type"] == "tool.executed" and e["effect"] == "external" for e in after)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_denied_call_runs_under_its_own_id(seed: int) -> None:
    (session,) = [s for s in plan_of(seed).teller(stories.DENIED).sessions if s.story]
    denied = {e["tool_call_id"] for e in session.events() if e.get("policy_decision") == "deny"}
    ran = [e for e in session.events() if e["event_type"] == "tool.executed" and e["tool_call_id"] in denied]
    assert [event["outcome"] for event in ran] == ["success"]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_other_call_runs_after_its_denial(seed: int) -> None:
    for member in plan_of(seed).members:
        for session in member.sessions:
            if session.story == stories.DENIED:
                continue
            denied = {e["tool_call_id"] for e in session.events() if e.get("policy_decision") == "deny"}
            assert not any(
                e["event_type"] == "tool.executed" and e["tool_call_id"] in denied for e in session.events()
            )


@pytest.mark.parametrize("seed", SEEDS)
def test_the_changed_model_works_off_forty_sessions_in_its_time(seed: int) -> None:
    member = plan_of(seed).teller(stories.MODEL)
    changed = [session for session in member.sessions if session.story]
    models = {
        event["model_version"] + event["model_id"] for event in changed[0].events() if "model_id" in event
    }
    before = {e["model_version"] + e["model_id"] for e in member.sessions[0].events() if "model_id" in e}
    ends = itertools.accumulate(session.pause + session.seconds() for session in changed)
    assert models != before
    assert sum(step.telling is not None for session in changed for step in session.steps) == 1
    assert sum(end < 80 for end in ends) >= 38


def test_history_is_two_weeks_in_order_and_warms_every_established_agent(tmp_path: Path) -> None:
    plan = plan_of(3)
    events = history_of(plan, tmp_path / "history.gz")
    times = [event.timestamp for event in events]
    assert times == sorted(times)
    assert END - timedelta(days=15) < times[0]
    assert END - timedelta(minutes=10) > times[-1]
    assert len({event.event_id for event in events}) == len(events)
    sessions: dict[str, set[str]] = defaultdict(set)
    for event in events:
        sessions[event.agent_id].add(event.session_id)
    assert set(sessions) == {member.agent_id for member in plan.members if member.part != "new"}
    assert min(len(ids) for ids in sessions.values()) >= 200
    assert 20_000 < len(events) < 45_000


def test_history_is_the_same_for_the_same_seed_and_end(tmp_path: Path) -> None:
    plan = plan_of(4)
    assert history_of(plan, tmp_path / "a.gz") == history_of(plan, tmp_path / "b.gz")


def test_history_holds_one_declared_change_and_what_follows_it_is_new(tmp_path: Path) -> None:
    events = history_of(plan_of(5), tmp_path / "history.gz")
    (change,) = [event for event in events if event.event_type == "change.declared"]
    models = [
        (event.timestamp > change.timestamp, event.model_version)
        for event in events
        if event.agent_id == change.agent_id and event.event_type == "model.invoked"
    ]
    assert {version for after, version in models if after} == {change.model_version}
    assert change.model_version not in {version for after, version in models if not after}
