from __future__ import annotations

import base64
import dataclasses
import json
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from monitor.simulation import stories
from monitor.simulation.plan import Plan, make_plan
from monitor.simulation.site import Site
from tests.daemons import until
from tests.simulation.conftest import Intake

SECRET = "whsec_" + base64.b64encode(b"a secret of the tests, 32 bytes!").decode()


def leaking_plan() -> Plan:
    """One agent: the leak at once, then ordinary sessions."""
    plan = make_plan(2)
    member = plan.teller(stories.SECRET)
    story = next(session for session in member.sessions if session.story)
    others = [session for session in member.sessions if not session.story][:2]
    sessions = [dataclasses.replace(session, pause=0.0) for session in (story, *others)]
    return dataclasses.replace(plan, members=(dataclasses.replace(member, sessions=sessions),))


@pytest.fixture
def site(intake: Intake) -> Iterator[tuple[Site, str]]:
    running = Site(leaking_plan(), SECRET, "r1")
    url = running.open()
    running.start(intake.url)
    until(lambda: running.tellings, "the leak")
    yield running, url
    running.close()


def order(url: str, scope: str, agent_id: str, session_id: str | None) -> dict[str, Any]:
    """Send a signed stop order; the endpoint's answer."""
    key = str(uuid.uuid4())
    at = datetime.now(UTC)
    body = json.dumps(
        {
            "type": "agent.stop.requested",
            "timestamp": at.isoformat(),
            "data": {
                "request_id": key,
                "action": "stop",
                "mode": "immediate",
                "target": {"scope": scope, "agent_id": agent_id, "session_id": session_id},
                "expires_at": (at + timedelta(minutes=1)).isoformat(),
                "dry_run": False,
            },
        }
    )
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": f'"{key}"',
        "webhook-id": key,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(key, at, body),
    }
    reply = httpx.post(url, content=body, headers=headers, trust_env=False)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def test_stopping_an_agent_kills_its_process(site: tuple[Site, str]) -> None:
    running, url = site
    (agent,) = running.agents.values()
    pid = agent.pid
    answer = order(url, "agent", agent.member.agent_id, None)
    assert answer["state"] == "contained"
    assert answer["enforcement_points"][0]["name"] == "process-supervisor"
    assert str(pid) in answer["enforcement_points"][0]["detail"]
    assert running.alive() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)


def test_stopping_a_session_lets_the_agent_go_on_without_it(site: tuple[Site, str], intake: Intake) -> None:
    running, url = site
    telling = running.tellings[stories.SECRET]
    assert order(url, "session", telling.agent_id, telling.session_id)["state"] == "contained"

    def seen() -> list[str]:
        return [event["session_id"] for event in intake.taken]

    until(lambda: len(set(seen())) > 1, "events of another session")
    other = next(session_id for session_id in seen() if session_id != telling.session_id)
    assert telling.session_id not in seen()[seen().index(other) :]
    assert running.alive() == 1


@pytest.mark.parametrize(("scope", "agent_id"), [("agent", "nobody"), ("session", None)])
def test_what_does_not_run_here_cannot_be_confirmed(
    site: tuple[Site, str], scope: str, agent_id: str | None
) -> None:
    running, url = site
    answer = order(url, scope, agent_id or next(iter(running.agents)), "s-unknown")
    assert answer["state"] == "failed"
    assert running.alive() == 1
