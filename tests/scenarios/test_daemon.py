"""The whole daemon, as a user runs it: three processes, real sockets, real ClickHouse."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.builders import event
from tests.daemons import Daemon, running, stored_ids, until

AT = b'"timestamp": "2026-03-02T09:00:00Z"'
TRACES = Path(__file__).parents[2] / ".." / "shared" / "traces" / "agentdojo-dev.ndjson.gz"


def line(*arguments: object, **columns: object) -> bytes:
    """One event as the wire has it, without what the daemon sets."""
    record = msgspec.to_builtins(event(*arguments, **columns))  # type: ignore[arg-type]
    return json.dumps(
        {k: v for k, v in record.items() if v is not None and k not in {"tenant", "identity"}}
    ).encode()


def denials(session: str, count: int = 6) -> list[bytes]:
    """An agent that keeps pushing at a policy."""
    return [
        line(
            "policy.checked",
            at=i,
            session_id=session,
            policy_decision="deny",
            policy_id="dlp-7",
            outcome="blocked",
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("watch") / "data") as started:
        yield started


def test_a_change_can_be_declared_from_a_release_pipeline(daemon: Daemon) -> None:
    before = daemon.metrics()["detection"]["judged_events"]
    given = ("--kind", "model", "--ref", "REL-7", "--environment", "production")
    event = daemon.json("change", "invoice-agent", *given, "--to", "model_id=large-2")
    assert event["event_type"] == "change.declared"
    assert (event["change_kind"], event["change_ref"], event["model_id"]) == ("model", "REL-7", "large-2")
    until(lambda: daemon.metrics()["detection"]["judged_events"] > before, "its judgement")
    daemon.run("change", "invoice-agent", *given, "--to", "colour=red", code=2)


def test_repeated_blocks_become_one_alert_that_explains_itself(daemon: Daemon) -> None:
    receipt = daemon.client.send(denials("pushing"), live=True)
    assert receipt["accepted"] == 6
    assert not receipt["rejected"]
    alert = until(lambda: list(daemon.client.alerts(agent="invoice-agent", status="new")), "an alert")[0]
    assert alert["session_id"] == "pushing"
    assert any(char.isdigit() for char in alert["reason"])
    shown = daemon.json("alerts", "show", alert["id"])
    assert shown["runbook"]
    assert set(shown["event_ids"]) <= {json.loads(raw)["event_id"] for raw in denials("pushing")}
    assert daemon.run("alerts", "show", alert["id"]).count("pushing") >= 1
    assert [a["id"] for a in daemon.json("alerts", "list", "--agent", "invoice-agent")] == [alert["id"]]


def test_by_default_an_automatic_order_is_only_noted(daemon: Daemon) -> None:
    alert = until(lambda: list(daemon.client.alerts(agent="invoice-agent")), "an alert")[0]
    orders = daemon.client.get(f"/api/v1/alerts/{alert['id']}")["orders"]
    assert [order["state"] for order in orders] == ["shadow"]


def test_a_repeated_batch_changes_nothing(daemon: Daemon) -> None:
    before = daemon.metrics()["edge"]["edge_events_total"]
    receipt = daemon.client.send(denials("pushing"), live=True)
    assert (receipt["accepted"], receipt["duplicates"]) == (6, 6)
    alert = next(daemon.client.alerts(agent="invoice-agent"))
    assert alert["count"] == 1
    until(lambda: daemon.metrics()["edge"]["edge_requests_total"] >= 2, "the heartbeat")
    assert daemon.metrics()["edge"]["edge_events_total"] == max(before, 6)


def test_an_event_id_used_again_for_other_content_is_kept_and_alerted(daemon: Daemon) -> None:
    daemon.client.send([line(session_id="liar", agent_id="liar", tool_name="read")], live=True)
    daemon.client.send([line(session_id="liar", agent_id="liar", tool_name="pay")], live=True)
    alert = until(lambda: list(daemon.client.alerts(agent="liar")), "an alert about the id")[0]
    assert alert["title"] == "One event id, two different events"


def test_bad_input_is_answered_with_index_and_reason_and_its_neighbours_are_kept(daemon: Daemon) -> None:
    lines = [
        line(at=1, session_id="mixed", agent_id="tidy-agent"),
        b'{"event_type": "tool.requested", "agent_id": "tidy-agent"',
        b'{"event_type": "tool.requested", "agent_id": "a", "agent_id": "b", ' + AT + b"}",
        b'{"event_type": "tool.imagined", "agent_id": "a", ' + AT + b"}",
        b'{"event_type": "tool.requested", ' + AT + b"}",
        b'{"event_type": "tool.requested", "agent_id": "a", ' + AT + b', "amount": "1"}',
        b'{"event_type": "tool.requested", "agent_id": "\xff", ' + AT + b"}",
        line(at=2, session_id="mixed", agent_id="tidy-agent"),
    ]
    receipt = daemon.client.send(lines, live=True)
    assert receipt["accepted"] == 2
    assert [fault["index"] for fault in receipt["rejected"]] == [1, 2, 3, 4, 5, 6]
    assert all(len(fault["reason"]) > 15 for fault in receipt["rejected"])
    dead = [
        json.loads(raw)
        for file in sorted((daemon.data / "dead-letters").iterdir())
        for raw in file.read_bytes().splitlines()
    ]
    assert len(dead) == 6


def test_replayed_events_are_kept_and_judged_but_marked(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "recorded.ndjson.gz"
    recorded = [raw.replace(b"invoice-agent", b"old-agent") for raw in denials("recorded")]
    file.write_bytes(gzip.compress(b"\n".join(recorded)))
    assert daemon.json("replay", str(file)) == {"accepted": 6, "duplicates": 0, "rejected": 0}
    alert = until(lambda: list(daemon.client.alerts(agent="old-agent")), "the alert of a replay")[0]
    assert alert["replayed"]
    assert daemon.client.get(f"/api/v1/alerts/{alert['id']}")["orders"] == []


def test_status_shows_three_live_processes(daemon: Daemon) -> None:
    status = until(lambda: (s := daemon.json("status"))["ready"] and s, "ready")
    assert {process["name"] for process in status["processes"]} >= {"edge", "detection", "console"}
    assert "detection" in daemon.run("status")


def test_metrics_and_health_answer(daemon: Daemon) -> None:
    url = daemon.runtime.console_url
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert "watchkeeper_" in httpx.get(f"{url}/metrics").text
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    assert "/api/v1/alerts" in paths


def test_without_a_key_nothing_gets_in_or_out(daemon: Daemon) -> None:
    assert httpx.post(f"{daemon.runtime.edge_url}/v1/events", content=line()).status_code == 401
    assert httpx.get(f"{daemon.runtime.console_url}/api/v1/alerts").status_code == 401


def test_a_second_daemon_on_the_same_folder_is_refused_with_the_holder_named(daemon: Daemon) -> None:
    second = Daemon(daemon.data)
    second.config = daemon.config
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "monitor.cli", "--config", str(daemon.config), "serve"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert daemon.process
    assert str(daemon.process.pid) in done.stderr
    assert "Traceback" not in done.stderr


def test_kill_without_an_endpoint_does_not_claim_success(daemon: Daemon) -> None:
    order = daemon.json("kill", "--agent", "invoice-agent", "--reason", "exercise", "--wait", "20", code=1)
    assert order["state"] == "failed"
    assert "endpoint" in order["detail"]


def test_a_killed_daemon_comes_back_with_everything_it_answered(tmp_path: Path) -> None:
    with running(tmp_path / "data") as daemon:
        sent = [line(at=i, session_id=f"s{i // 10}") for i in range(300)]
        daemon.client.send(sent, live=True)
        daemon.kill()
        daemon.start()
        assert daemon.client.send(sent, live=True)["duplicates"] == 300
        daemon.stop()
        assert stored_ids(tmp_path / "data") == sorted(json.loads(raw)["event_id"] for raw in sent)


def test_a_process_that_dies_is_started_again(tmp_path: Path) -> None:
    import os
    import signal

    with running(tmp_path / "data") as daemon:
        before = {p["name"]: p["pid"] for p in daemon.client.get("/api/v1/status")["processes"]}
        os.kill(before["detection"], signal.SIGKILL)

        def again() -> bool:
            now = {p["name"]: p["pid"] for p in daemon.client.get("/api/v1/status")["processes"]}
            return now["detection"] != before["detection"] and now["edge"] == before["edge"]

        until(again, "another detection process")
        daemon.client.send(denials("after"), live=True)
        until(lambda: list(daemon.client.alerts(agent="invoice-agent")), "an alert by the new process")


def test_recorded_real_agents_replay_whole_and_clickhouse_holds_exactly_their_events(tmp_path: Path) -> None:
    if not TRACES.exists():
        pytest.skip("the recorded traces are not beside this checkout")
    expected = sorted(
        json.loads(raw)["event_id"] for raw in gzip.decompress(TRACES.read_bytes()).splitlines()
    )
    with running(tmp_path / "data") as daemon:
        assert daemon.json("replay", str(TRACES)) == {
            "accepted": len(expected),
            "duplicates": 0,
            "rejected": 0,
        }
        daemon.stop()
    assert stored_ids(tmp_path / "data") == expected


def test_what_was_replayed_may_still_happen(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "past.ndjson"
    lines = [raw.replace(b"invoice-agent", b"twice-agent") for raw in denials("twice")]
    file.write_bytes(b"\n".join(lines))
    daemon.json("replay", str(file))
    assert daemon.json("replay", str(file))["duplicates"] == 6
    assert daemon.json("replay", "--live", str(file))["duplicates"] == 0
    found = until(
        lambda: (a := list(daemon.client.alerts(agent="twice-agent")), len(a) == 2)[1] and a,
        "one alert for the past and one for now",
    )
    assert sorted(alert["replayed"] for alert in found) == [False, True]


def test_a_person_can_stop_an_agent_while_clickhouse_is_down(tmp_path: Path) -> None:
    nowhere = '[store]\ndsn = "clickhouse://user:hidden@127.0.0.1:9/watchkeeper"\n'
    with running(tmp_path / "data", nowhere, ready=False) as daemon:
        order = daemon.json(
            "kill", "--agent", "invoice-agent", "--reason", "exercise", "--wait", "20", code=1
        )
        assert order["state"] == "failed"
        assert "endpoint" in order["detail"]
        daemon.client.send(denials("dark"), live=True)
        until(lambda: list(daemon.client.alerts(agent="invoice-agent")), "an alert, without ClickHouse")
        assert httpx.get(f"{daemon.runtime.console_url}/readyz").status_code == 503
        assert "hidden" not in daemon.log.read_text()


def test_an_agent_is_declared_listed_and_withdrawn(daemon: Daemon) -> None:
    daemon.run("agents", "declare", "books", "--owner", "ana", "--risk-tier", "high", "--tool", "read")
    found = {one["agent_id"]: one["declared"] for one in daemon.json("agents", "list")}
    assert found["books"]["owner"] == "ana"
    assert found["invoice-agent"] is None
    assert "never" in daemon.run("agents", "list")
    daemon.run("agents", "withdraw", "books", "--reason", "gone")
    daemon.run("agents", "withdraw", "books", code=1)
    acts = [one["action"] for one in daemon.json("audit", "--subject", "agent:default/books")]
    assert acts == ["agent.withdraw", "agent.declare"]


def test_a_person_is_added_with_a_password_and_signs_in_by_it(daemon: Daemon) -> None:
    daemon.run("people", "add", "bea", "--role", "analyst")
    assert "/login?token=" in daemon.run("login", "bea")
    assert {one["name"]: one["role"] for one in daemon.json("people", "list")} == {
        "admin": "admin",
        "bea": "analyst",
    }
    daemon.run("people", "role", "bea", "viewer", "--reason", "left the team")
    daemon.run("people", "disable", "bea")
    daemon.run("login", "bea", code=1)
    daemon.run("people", "disable", "admin", code=1)
