"""The whole daemon, when the span that names the agent comes in a later request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.daemons import Daemon, running, until

RULE = """\
title: A disk is wiped
name: wipe
logsource: {product: ai_agent}
detection:
  s: {event_type: tool.executed, tool_name: wipe_disk}
  condition: s
---
title: One agent wipes several disks
id: 6b1f0c52-aaaa-4000-8000-0000000000aa
level: high
description: The same agent wiped three disks within a minute.
correlation:
  type: event_count
  rules: [wipe]
  group-by: [agent_id]
  timespan: 60s
  condition: {gte: 3}
"""

HISTORY = """
import asyncio, json, sys
from pathlib import Path
from monitor.settings import load
from monitor.store.clickhouse import EventStore
from monitor.store.queries import Readers
readers = Readers(EventStore.open(load(data=Path(sys.argv[1]))))
async def ask():
    return [await readers.session_events("default", sys.argv[2], corrected=way) for way in (True, False)]
rows = asyncio.run(ask())
print(json.dumps([[(row["event_id"], row["agent_id"], row["tool_name"]) for row in way] for way in rows]))
"""


def value(given: str) -> dict[str, str]:
    return {"stringValue": given}


def span(trace: str, number: int, parent: int | None, **attributes: str) -> dict[str, Any]:
    now = time.time_ns()
    return {
        "traceId": trace,
        "spanId": f"{number:016x}",
        **({} if parent is None else {"parentSpanId": f"{parent:016x}"}),
        "name": "a span",
        "startTimeUnixNano": str(now - 1_000_000),
        "endTimeUnixNano": str(now),
        "attributes": [{"key": k.replace("__", "."), "value": value(v)} for k, v in attributes.items()],
    }


def send(daemon: Daemon, key: str, *spans: dict[str, Any]) -> None:
    """One OTLP request, tried again while the edge is being started."""
    resource = {"attributes": [{"key": "service.name", "value": value("shop")}]}
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}

    def sent() -> bool:
        try:
            answer = httpx.post(
                f"{daemon.runtime.edge_url}/v1/traces",
                json=body,
                headers={"Authorization": f"Bearer {key}"},
                trust_env=False,
            )
        except httpx.HTTPError:
            return False
        assert answer.status_code in (200, 503), answer.text
        return answer.is_success

    until(sent, "the edge takes the spans")


def edge_of(daemon: Daemon) -> int:
    return int(
        next(p["pid"] for p in daemon.client.get("/api/v1/status")["processes"] if p["name"] == "edge")
    )


def told_late(daemon: Daemon, key: str, name: str) -> None:
    """Three wiped disks, a tick, a killed edge, and then the span with the agent's name."""
    trace = f"{int.from_bytes(name.encode()):032x}"
    before = edge_of(daemon)
    wipes = [
        span(trace, n, 1, gen_ai__operation__name="execute_tool", gen_ai__tool__name="wipe_disk",
             gen_ai__tool__call__id=f"{name}-{n}")
        for n in (2, 3, 4)
    ]  # fmt: skip
    send(daemon, key, *wipes)
    ticked = daemon.metrics()["detection"]["ticked_at"]
    until(lambda: daemon.metrics()["detection"]["ticked_at"] > ticked, "a tick later")
    os.kill(before, signal.SIGKILL)
    until(lambda: edge_of(daemon) != before, "another edge")
    agent = {"gen_ai__operation__name": "invoke_agent", "gen_ai__agent__name": name}
    send(daemon, key, span(trace, 1, None, **agent, session__id=f"session-{name}"))


def history(data: Path, session: str) -> list[list[list[str]]]:
    """The session as corrected and as judged: event id, agent and tool of each event."""
    done = subprocess.run(
        [sys.executable, "-c", HISTORY, str(data), session], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: list[list[list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_an_agent_that_is_named_a_second_later_is_the_one_that_is_alerted_on(tmp_path: Path) -> None:
    (tmp_path / "wipe.yml").write_text(RULE)
    settings = f"[detection]\nrules = [{json.dumps(str(tmp_path / 'wipe.yml'))}]\n"
    with running(tmp_path / "data", settings) as daemon:
        key = daemon.json("keys", "create", "shop")["key"]
        told_late(daemon, key, "clerk")
        alerts = until(lambda: list(daemon.client.alerts(agent="shop/clerk")), "an alert on the agent")
        assert [(a["title"], a["identity"]) for a in alerts] == [
            ("One agent wipes several disks", "declared")
        ]
        assert len(daemon.json("alerts", "show", alerts[0]["id"])["event_ids"]) == 3
    corrected, judged = history(tmp_path / "data", "session-clerk")
    assert [(agent, tool) for _, agent, tool in corrected if tool] == [("shop/clerk", "wipe_disk")] * 6
    assert [tool for _, _, tool in judged if tool] == []
    assert {agent for _, agent, _ in judged} == {"shop/clerk"}
