"""A rule is tried on stored history before it may page anybody: through the daemon, and without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.daemons import Daemon, until

RULE = """title: pays
id: 6b1f0c52-0000-4000-8000-000000000001
name: pays
level: high
logsource: {product: ai_agent}
detection: {s: {tool_name|expand: '%pay_tools%'}, condition: s}
---
title: pays again and again
id: 6b1f0c52-0000-4000-8000-000000000002
level: high
correlation: {type: event_count, rules: [pays], group-by: [session_id], timespan: 1h, condition: {gte: 3}}
---
title: pays for the first time
id: 6b1f0c52-0000-4000-8000-000000000003
level: low
logsource: {product: ai_agent}
detection: {s: {tool_name: pay}, condition: s}
watchkeeper: {first_seen: {fields: [session_id], group-by: [agent_id], after: 30m}}
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Any:
    daemon = Daemon(tmp_path / "data", '[spool]\nseal_seconds = 0.2\n[lists]\npay_tools = ["pay"]\n')
    daemon.start()
    lines = [
        json.dumps(
            {
                "event_id": f"e{number}",
                "event_type": "tool.executed",
                "timestamp": f"2026-11-2{1 + number // 12}T{10 + number // 6 % 2}:{number % 6}0:00Z",
                "agent_id": "clerk",
                "session_id": f"s{number // 6}",
                "tool_name": "pay" if number % 2 else "look",
            }
        ).encode()
        for number in range(24)
    ]
    assert daemon.client.send(lines, live=False)["accepted"] == 24
    until(
        lambda: daemon.metrics()["console"].get("stored_events", 0) >= 24 or _stored(daemon),
        "all of it stored",
    )
    yield daemon
    daemon.stop()


def _stored(daemon: Daemon) -> bool:
    agents = daemon.client.get("/api/v1/agents")["items"]
    return sum(agent["events"] for agent in agents) >= 24


def hunted(daemon: Daemon, rule: str, file: Path) -> Any:
    return daemon.json(
        "rules", "hunt", rule, "--rules", str(file), "--from", "2026-11-20", "--to", "2026-11-24"
    )


def test_a_hunt_says_what_would_have_alerted_by_sql_and_streamed(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "rule.yml"
    file.write_text(RULE)
    again = hunted(daemon, "pays again and again", file)
    assert (again["how"], again["findings"], again["alerts"], again["agents"]) == ("sql", 4, 4, 1)
    assert [(day["day"], day["events"], day["findings"]) for day in again["days"]] == [
        ("2026-11-21", 6, 2),
        ("2026-11-22", 6, 2),
    ]
    assert again["hits"][0]["event_ids"] == ["e1", "e3", "e5"]
    first = hunted(daemon, "pays for the first time", file)
    assert first["how"] == "stream"
    assert "first_seen" in first["why"]
    assert [hit["session_id"] for hit in first["hits"]] == ["s1", "s2", "s3"]
    page = daemon.run("rules", "hunt", "pays again and again", "--rules", str(file), "--from", "2026-11-20")
    assert "4 findings, 4 alerts" in page
    assert "█" in page
    daemon.stop()
    assert hunted(daemon, "pays again and again", file) == again


def test_what_cannot_be_hunted_says_why(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "rule.yml"
    file.write_text(RULE.replace("%pay_tools%", "%other_list%"))
    daemon.run("rules", "hunt", "pays again and again", "--rules", str(file), code=1)
    daemon.run("rules", "hunt", "pais again", "--rules", str(file), code=1)
    daemon.run("rules", "hunt", "pays for the first time", "--rules", str(file), "--from", "soon", code=2)


def test_a_field_that_no_stored_event_carries_is_told_with_what_was_meant(
    daemon: Daemon, tmp_path: Path
) -> None:
    event = {
        "event_id": "odd",
        "event_type": "tool.executed",
        "timestamp": "2026-11-23T10:00:00Z",
        "agent_id": "clerk",
        "attributes": {"ledger.region": "eu", "meta": {"team": "a"}},
    }
    daemon.client.send([json.dumps(event).encode()], live=False)
    until(lambda: "meta" in daemon.client.get("/api/v1/attributes")["items"], "its attributes")
    file = tmp_path / "rule.yml"
    fields = "ledger.regoin: eu, meta.team: a, tool_args.to: x"
    file.write_text(RULE.split("---")[0].replace("tool_name|expand: '%pay_tools%'", fields))
    told = daemon.json("rules", "check", str(file))
    remarks = " ".join(one["text"] for one in told["remarks"])
    assert "ledger.regoin" in remarks
    assert "did you mean ledger.region?" in remarks
    assert "meta.team" not in remarks
    assert "tool_args.to" not in remarks


def test_a_hunt_whose_reader_leaves_gives_way_to_the_next(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "rule.yml"
    file.write_text(RULE)
    asked = {
        "rule": "6b1f0c52-0000-4000-8000-000000000003",
        "documents": [(str(file), RULE)],
        "lists": {"pay_tools": ["pay"]},
        "since": 0,
        "until": 253_402_300_799_999_999,
    }
    url, headers = daemon.runtime.console_url, {"Authorization": f"Bearer {daemon.runtime.token}"}
    statuses = []
    for _ in range(3):
        with (
            httpx.Client(base_url=url, headers=headers, trust_env=False) as client,
            client.stream("POST", "/api/v1/hunts", json=asked) as reply,
        ):
            # the head of the answer is read, and nothing of its body
            statuses.append(reply.status_code)
    assert statuses[0] == 200
    assert set(statuses) <= {200, 429}

    def free() -> bool:
        reply = httpx.post(f"{url}/api/v1/hunts", json=asked, headers=headers, trust_env=False)
        return reply.status_code == 200 and '"result"' in reply.text

    until(free, "a hunt that finds its place free")
