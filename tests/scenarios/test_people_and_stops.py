"""From an alert to people and to a stopped process: Slack, the kill switch, the proof, the way back."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import uvicorn

from monitor.simulation.endpoint import StopResult, endpoint_app
from tests.alerting.slack_api import TOKEN, SlackApi
from tests.daemons import Daemon, running, until

SECRET = "whsec_" + b64encode(b"a secret of the scenario tests..").decode()


class Agent:
    """A child process that stands for an agent, and the site's endpoint that really kills it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.orders: list[dict[str, Any]] = []
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/kill"
        self.server = uvicorn.Server(
            uvicorn.Config(endpoint_app(SECRET, self.stop), log_config=None, lifespan="off")
        )
        self.thread = threading.Thread(target=self.server.run, args=([listener],), daemon=True)
        self.thread.start()

    async def stop(self, target: dict[str, Any]) -> StopResult:
        self.orders.append(target)
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        return StopResult("stopped", "supervisor", f"killed process {self.process.pid}")

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join(5)
        self.process.kill()


def event(event_type: str, agent: str, **columns: Any) -> bytes:
    return json.dumps(
        {"event_type": event_type, "agent_id": agent, "timestamp": datetime.now(UTC).isoformat(), **columns}
    ).encode()


@pytest.fixture(scope="module")
def slack() -> Iterator[SlackApi]:
    with SlackApi() as api:
        yield api


@pytest.fixture(scope="module")
def site() -> Iterator[Agent]:
    agent = Agent()
    yield agent
    agent.end()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, slack: SlackApi, site: Agent) -> Iterator[Daemon]:
    settings = f"""
[slack]
token = "{TOKEN}"
base_url = "{slack.url}"

[containment]
mode = "enforce"
grace_seconds = 1
protected = ["crown-*"]

[[containment.endpoints]]
name = "site"
url = "{site.url}"
secrets = ["{SECRET}"]
allow_private = true
"""
    with running(tmp_path_factory.mktemp("people") / "data", settings) as started:
        yield started


def leak(agent: str) -> list[bytes]:
    """A session that reads a secret and then reaches for the way out."""
    return [
        event("tool.executed", agent, session_id="leak", tool_name="vault_read", outcome="success"),
        event("tool.requested", agent, session_id="leak", tool_name="http_post", effect="external"),
    ]


def critical(daemon: Daemon, agent: str) -> dict[str, Any]:
    return until(
        lambda: next(iter(daemon.client.alerts(agent=agent, level="critical")), None), f"the alert on {agent}"
    )


def test_a_leak_stops_a_real_process_and_the_silence_is_proven(daemon: Daemon, site: Agent) -> None:
    daemon.client.send(leak("courier"), live=True)
    alert = critical(daemon, "courier")
    until(lambda: site.process.poll() is not None, "the agent's process to be gone")

    def others_go_on_and_it_is_proven() -> dict[str, Any] | None:
        daemon.client.send([event("model.invoked", "bystander", session_id="calm")], live=True)
        orders = daemon.client.get(f"/api/v1/alerts/{alert['id']}")["orders"]
        return next((order for order in orders if order["state"] == "contained"), None)

    order = until(others_go_on_and_it_is_proven, "proof of silence")
    assert order["agent_id"] == "courier"
    assert order["detected_at"] <= order["sent_at"] <= order["confirmed_at"] < order["silent_at"]
    assert [target["agent_id"] for target in site.orders] == ["courier"]


def test_slack_gets_the_alert_and_its_thread_every_change(daemon: Daemon, slack: SlackApi) -> None:
    alert = critical(daemon, "courier")

    def shown() -> list[str]:
        return [json.dumps(message.blocks) for message in slack.heads]

    until(lambda: any(alert["title"] in text and "courier" in text for text in shown()), "a message")
    reply = httpx.post(
        f"{daemon.runtime.console_url}/api/v1/alerts/{alert['id']}/changes",
        headers={"Authorization": f"Bearer {daemon.runtime.token}"},
        json={"status": "closed", "verdict": "true_positive", "reason": "secret rotated"},
    )
    assert reply.is_success, reply.text
    until(lambda: any("secret rotated" in message.text for message in slack.replies), "the thread's update")
    history = daemon.json("alerts", "show", alert["id"])["changes"]
    assert {"status", "verdict"} <= {change["field"] for change in history}


def test_slack_gets_a_picture_of_what_the_agent_did(daemon: Daemon, slack: SlackApi) -> None:
    critical(daemon, "courier")
    picture = until(
        lambda: next((one for one in slack.pictures if "courier" in one.title), None), "the picture in Slack"
    )
    assert picture.content.startswith(b"\x89PNG")
    assert "courier" in json.dumps(slack.messages[str(picture.thread_ts)].blocks)


def test_a_protected_agent_is_not_stopped_but_a_human_is_asked(daemon: Daemon, site: Agent) -> None:
    daemon.client.send(leak("crown-jewels"), live=True)
    alert = critical(daemon, "crown-jewels")
    order = daemon.client.get(f"/api/v1/alerts/{alert['id']}")["orders"][0]
    assert order["state"] == "held"
    assert "protected" in order["detail"]
    assert "crown-jewels" not in {target["agent_id"] for target in site.orders}


def test_a_human_may_stop_what_a_rule_may_not(daemon: Daemon, site: Agent) -> None:
    def others_go_on() -> None:
        while not done.wait(0.3):
            daemon.client.send([event("model.invoked", "bystander", session_id="calm")], live=True)

    done = threading.Event()
    thread = threading.Thread(target=others_go_on)
    thread.start()
    try:
        order = daemon.json(
            "kill", "--agent", "crown-jewels", "--reason", "seen in the queue", "--wait", "40"
        )
    finally:
        done.set()
        thread.join()
    assert order["state"] == "contained"
    assert "crown-jewels" in {target["agent_id"] for target in site.orders}
