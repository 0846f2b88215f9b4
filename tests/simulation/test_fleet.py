from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from monitor.events import Record
from monitor.simulation.fleet import AgentProcess
from monitor.simulation.plan import Member, make_plan
from tests.daemons import until
from tests.simulation.conftest import Intake


def quick_member(sessions: int = 3, story: bool = False) -> Member:
    """A fast agent whose sessions follow each other at once."""
    plan = make_plan(1)
    member = plan.teller("policy-blocks") if story else next(m for m in plan.members if m.part == "chatty")
    chosen = [s for s in member.sessions if (s.story is not None) == story][:sessions]
    return dataclasses.replace(member, sessions=[dataclasses.replace(s, pause=0.0) for s in chosen])


@pytest.fixture
def start(intake: Intake) -> Iterator[Callable[[Member], tuple[AgentProcess, list[dict[str, Any]]]]]:
    started: list[AgentProcess] = []

    def run(member: Member) -> tuple[AgentProcess, list[dict[str, Any]]]:
        said: list[dict[str, Any]] = []
        agent = AgentProcess(member, intake.url, "key-1", "r1", lambda _, line: said.append(line))
        agent.start()
        started.append(agent)
        return agent, said

    yield run
    for agent in started:
        agent.kill()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_agent_sends_its_sessions_in_order_with_its_key(intake: Intake, start: Any) -> None:
    member = quick_member(sessions=2)
    agent, said = start(member)
    until(lambda: sum(line["kind"] == "done" for line in said) == 2, "two sessions done")
    agent.end()
    expected = [event["event_type"] for session in member.sessions for event in session.events()]
    times = [event["timestamp"] for event in intake.taken]
    assert [event["event_type"] for event in intake.taken][: len(expected)] == expected
    assert times == sorted(times)
    assert len({event["event_id"] for event in intake.taken}) == len(intake.taken)
    assert intake.keys == {"Bearer key-1"}
    for event in intake.taken:
        msgspec.convert(event, Record, strict=False)


def test_an_agent_that_is_told_to_wait_sends_the_same_events_again(intake: Intake, start: Any) -> None:
    intake.replies = [(429, {"Retry-After": "0"}), (503, {"Retry-After": "0"})]
    agent, said = start(quick_member(sessions=1))
    until(lambda: any(line["kind"] == "done" for line in said), "a session done")
    agent.end()
    ids = [[event["event_id"] for event in batch] for batch in intake.offered[:3]]
    assert ids[0] == ids[1] == ids[2]
    assert len({event["event_id"] for event in intake.taken}) == len(intake.taken)


def test_a_killed_agent_sends_nothing_more(intake: Intake, start: Any) -> None:
    agent, _ = start(quick_member(sessions=40))
    until(lambda: intake.taken, "an event")
    pid = agent.pid
    assert agent.kill() == pid
    assert not alive(pid)
    sent = len(intake.offered)
    assert agent.kill() is None
    assert len(intake.offered) == sent


def test_an_agent_ends_when_whoever_started_it_is_gone(intake: Intake, start: Any) -> None:
    agent, _ = start(quick_member(sessions=40))
    until(lambda: intake.taken, "an event")
    agent._process.stdin.close()
    until(lambda: agent.pid is None, "the end of the agent")


def test_an_agent_started_again_leaves_out_what_is_done_and_what_was_stopped(
    intake: Intake, start: Any
) -> None:
    member = quick_member(sessions=3)
    agent, said = start(member)
    until(lambda: any(line["kind"] == "done" for line in said), "a session done")
    agent.kill()
    ids = [f"{session.session_id}-r1" for session in member.sessions]
    left = [session_id for session_id in ids if not agent.finished(session_id)]
    before = len(intake.taken)
    agent.start(without=frozenset(left[:1]))
    until(lambda: len(intake.taken) > before, "events of the next session")
    agent.kill()
    assert {event["session_id"] for event in intake.taken[before:]} == {left[1]}


def test_the_misbehaviour_is_told_with_the_event_that_was_sent(intake: Intake, start: Any) -> None:
    agent, said = start(quick_member(sessions=1, story=True))
    until(lambda: any(line["kind"] == "telling" for line in said), "the telling event")
    agent.kill()
    (telling,) = [line for line in said if line["kind"] == "telling"]
    (event,) = [event for event in intake.taken if event["event_id"] == telling["event_id"]]
    assert event["policy_decision"] == "deny"
    assert event["timestamp"] == telling["at"]
    assert event["session_id"] == telling["session_id"]


def test_an_agent_that_is_told_to_wait_can_still_be_ended(intake: Intake, start: Any) -> None:
    intake.replies = [(503, {"Retry-After": "5"})] * 100
    agent, _ = start(quick_member(sessions=1))
    until(lambda: intake.offered, "a refused batch")
    process = agent._process
    agent.end()
    assert process.returncode == 0
    assert len(intake.offered) == 1
