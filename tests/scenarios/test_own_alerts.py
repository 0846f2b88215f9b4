"""Alerts of the product about itself, from a real daemon: each fault is made, told, mended, and told."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitor.sources.keys import Keys
from monitor.store.state import State
from tests.daemons import Daemon, running, until

QUICK = """
[own_alerts]
silent_process_seconds = 6
silent_source_seconds = 4
silent_source_factor = 1
window_seconds = 4
calm_seconds = 1
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("own") / "data", QUICK) as started:
        yield started


class Key:
    """A sender with a key of its own, straight to the edge."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        state = State(daemon.data / "state.db")
        self.id, secret = Keys(state).create(name)
        state.close()
        self._url = f"{daemon.runtime.edge_url}/v1/events"
        self._headers = {"Authorization": f"Bearer {secret}"}

    def send(self, *events: dict[str, Any]) -> int:
        reply = httpx.post(self._url, json=list(events), headers=self._headers, trust_env=False)
        return reply.status_code


def said(agent: str, number: int, ahead: float = 0.0, **columns: Any) -> dict[str, Any]:
    moment = datetime.now(UTC) + timedelta(seconds=ahead)
    return {
        "event_type": "tool.executed",
        "agent_id": agent,
        "timestamp": moment.isoformat(),
        "event_id": f"{agent}-{number}",
        "session_id": f"{agent}-s",
        **columns,
    }


def own(daemon: Daemon, kind: str, about: str = "") -> dict[str, Any] | None:
    """The alert of the product about this fault, with its history."""
    for alert in daemon.client.alerts(agent="watchkeeper"):
        if alert["rule_id"] == f"watchkeeper.{kind}":
            found: dict[str, Any] = daemon.client.get(f"/api/v1/alerts/{alert['id']}")
            if about in found["evidence"].get("about", ""):
                return found
    return None


def told(daemon: Daemon, kind: str, about: str = "") -> dict[str, Any]:
    alert = until(lambda: own(daemon, kind, about), f"an alert: {kind}", 60)
    assert alert["reason"]
    assert alert["runbook"]
    return alert


def recovered(daemon: Daemon, kind: str, about: str = "") -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        alert = own(daemon, kind, about)
        return alert if alert and alert["evidence"]["condition"] == "recovered" else None

    return until(look, f"the end of: {kind}", 60)


def process(daemon: Daemon, name: str) -> int:
    for one in daemon.client.get("/api/v1/status")["processes"]:
        if one["name"] == name:
            return int(one["pid"])
    raise AssertionError(name)


def test_a_healthy_daemon_has_nothing_to_say_about_itself(daemon: Daemon) -> None:
    until(lambda: daemon.metrics()["detection"].get("ticked_at"), "the first ticks")
    assert [a["rule_id"] for a in daemon.client.alerts(agent="watchkeeper")] == []


def test_refused_records_are_told_with_key_reason_and_place(daemon: Daemon) -> None:
    key = Key(daemon, "sloppy")
    key.send(said("sloppy", 1), {"event_type": "tool.executed", "agent_id": "sloppy"})
    alert = told(daemon, "rejected", key.id)
    assert alert["level"] == "low"
    assert "timestamp: missing" in alert["reason"]
    assert "dead-letters" in alert["reason"]
    assert (alert["evidence"]["rejected"], alert["evidence"]["records"]) == (1, 2)
    recovered(daemon, "rejected", key.id)


def test_a_clock_that_is_ahead_is_told_for_its_sender_and_its_agent(daemon: Daemon) -> None:
    key = Key(daemon, "hasty")
    for number in range(4):
        key.send(said("hasty", number, ahead=3600 + number))
    alert = told(daemon, "clock-skew", key.id)
    assert 3500 < alert["evidence"]["skew_seconds"] < 3700
    about_agent = until(lambda: list(daemon.client.alerts(agent="hasty")), "the rule's alert")
    assert [one["title"] for one in about_agent] == ["Events dated in the future"]
    for number in range(4, 12):
        key.send(said("hasty", number))
    recovered(daemon, "clock-skew", key.id)


def test_a_sender_that_stops_and_one_that_says_so(daemon: Daemon) -> None:
    stops, ends = Key(daemon, "stops"), Key(daemon, "ends")
    last = until(lambda: daemon.metrics()["edge"]["ticked_at"], "a tick")

    def sent() -> bool:
        sent.number += 1  # type: ignore[attr-defined]
        stops.send(said("stops", sent.number))  # type: ignore[attr-defined]
        ends.send(said("ends", sent.number))  # type: ignore[attr-defined]
        enough = sent.number >= 12  # type: ignore[attr-defined]
        return enough and daemon.metrics()["edge"]["ticked_at"] > last + 6e6

    sent.number = 0  # type: ignore[attr-defined]
    until(sent, "some seconds of regular sending")
    ends.send(said("ends", 0, event_type="task.completed"))
    alert = told(daemon, "silent-source", stops.id)
    assert alert["evidence"]["silent_seconds"] >= 4
    assert own(daemon, "silent-source", ends.id) is None
    stops.send(said("stops", 10_000))
    history = recovered(daemon, "silent-source", stops.id)["changes"]
    assert [(one["actor"], one["field"], one["new"]) for one in history] == [
        ("watchkeeper", "condition", "recovered")
    ]


def test_a_flood_of_reused_ids_is_one_alert_and_every_event_is_kept(daemon: Daemon) -> None:
    key = Key(daemon, "forger")
    before = daemon.metrics()["edge"]
    first = said("forger", 1, tool_name="read")
    key.send(first)
    key.send(*({**first, "tool_name": f"pay-{n}", "session_id": f"s{n}"} for n in range(300)))
    (alert,) = until(lambda: list(daemon.client.alerts(agent="forger")), "an alert about the ids")
    assert alert["title"] == "One event id, two different events"

    def judged() -> bool:
        now = daemon.metrics()
        return (
            now["edge"]["edge_conflicts_total"] >= before["edge_conflicts_total"] + 300
            and now["detection"]["judged_events"] >= now["edge"]["edge_events_total"]
        )

    until(judged, "all of them judged")
    (alert,) = daemon.client.alerts(agent="forger")
    assert alert["count"] == 1


def test_a_process_that_hangs_and_one_that_dies(daemon: Daemon) -> None:
    edge = process(daemon, "edge")
    os.kill(edge, signal.SIGSTOP)
    try:
        alert = told(daemon, "process-silent", "edge")
        assert alert["level"] == "critical"
    finally:
        os.kill(edge, signal.SIGCONT)
    recovered(daemon, "process-silent", "edge")

    former = process(daemon, "detection")
    os.kill(former, signal.SIGKILL)
    until(lambda: process(daemon, "detection") != former, "another detection process", 60)
    alert = told(daemon, "process-restarted", "detection")
    assert alert["evidence"]["former_pid"] == former


def test_the_alerts_read_well_in_a_terminal(daemon: Daemon) -> None:
    listed = daemon.run("alerts", "list", "--agent", "watchkeeper")
    assert "A sender has gone silent" in listed
    alert = next(daemon.client.alerts(agent="watchkeeper"))
    shown = daemon.run("alerts", "show", alert["id"])
    assert alert["reason"][:40] in " ".join(shown.split())


def test_a_store_that_is_down_fills_the_spool_and_the_next_daemon_tells_that_both_are_over(
    tmp_path: Path,
) -> None:
    nowhere = '[store]\ndsn = "clickhouse://user:hidden@127.0.0.1:9/watchkeeper"\n'
    small = "[spool]\nmax_bytes = 60000\nseal_bytes = 20000\n"
    with running(tmp_path / "data", nowhere + small + QUICK, ready=False) as daemon:
        key = Key(daemon, "busy")
        assert "hidden" not in json.dumps(told(daemon, "storing-failed"))
        numbers, words = iter(range(10_000)), "".join(chr(97 + n * n % 26) for n in range(2000))

        def refused() -> bool:
            batch = [(n := next(numbers), words[n % 99 :]) for _ in range(40)]
            return key.send(*(said("busy", n, tool_args=f"{n}{text}") for n, text in batch)) == 503

        until(refused, "the spool full")

        def critical() -> dict[str, Any] | None:
            found = own(daemon, "spool-full")
            return found if found and found["level"] == "critical" else None

        alert = until(critical, "a critical alert", 60)
        assert "spool.max_bytes" in alert["reason"]
    with running(tmp_path / "data", small + QUICK) as daemon:
        assert recovered(daemon, "storing-failed")["status"] == "new"
        recovered(daemon, "spool-full")
        assert own(daemon, "process-restarted") is None
