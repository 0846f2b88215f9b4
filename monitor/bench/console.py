"""How long the console takes over a full history: at the server, in a browser, from alert to news."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from monitor.bench.browser import open_page
from monitor.bench.console_fill import AGENTS, SESSION_EVENTS
from monitor.child import daemon
from monitor.client import Client
from monitor.people.accounts import AccountError, People
from monitor.people.sessions import create_login_link
from monitor.settings import load
from monitor.store.state import State

REQUESTS = 30
VISITS = 10
NEWS = 8
PATIENCE_SECONDS = 60.0

Progress = Callable[[str, int, int], None]
"""Hears what is being done, how much of it, and of how much."""


def bench_console(alerts: int, events: int, progress: Progress) -> dict[str, Any]:
    """Fill a folder of its own, run the daemon on it, and measure.

    Milliseconds. At the server: from the request to the last byte of the answer, one at a time over one
    connection, ``cold`` being the first. In Chromium: from going to the page until the first row is
    visible; and from the moment an alert is filed until the page announces it. Both are None where there
    is no Playwright or no Chromium. Raises RuntimeError where the history cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="watchkeeper-bench-") as folder:
        data, config = Path(folder) / "data", Path(folder) / "bench.toml"
        config.write_text(f"data = {json.dumps(str(data))}\n[edge]\nport = 0\n[console]\nport = 0\n")
        _fill(data, alerts, events, progress)
        with daemon(config, data, Path(folder) / "daemon.log") as runtime:
            client = Client.find(data)
            _drained(client)
            with _signed_in(data, runtime.console_url) as browser:
                found = _pages(browser, client, events, progress)
            progress("browser", 0, 1)
            seen = _in_browser(data, runtime.console_url, client)
            progress("browser", 1, 1)
    return {"alerts": alerts, "events": events, **found, **seen}


def _fill(data: Path, alerts: int, events: int, progress: Progress) -> None:
    command = [sys.executable, "-m", "monitor.bench.console_fill", str(data), str(alerts), str(events)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as filling:
        assert filling.stdout
        for line in filling.stdout:
            progress(*json.loads(line))
    if filling.returncode:
        raise RuntimeError("the history could not be made; what was said above tells why")


def _drained(client: Client) -> None:
    """Wait until detection has heard of every verdict: that is the start's work, not the console's."""
    deadline, before = time.monotonic() + PATIENCE_SECONDS, -1.0
    while time.monotonic() < deadline:
        processes = client.get("/api/v1/status")["processes"]
        [detection] = [one for one in processes if one["name"] == "detection"]
        judged = detection["segment"] + detection["offset"] / 1e12
        if judged == before:
            return
        before = judged
        time.sleep(3)


@contextmanager
def _signed_in(data: Path, url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False, timeout=60, follow_redirects=True) as browser:
        browser.post("/login", data={"token": _link(data)}).raise_for_status()
        yield browser


def _link(data: Path) -> str:
    state = State(load(data=data).state_file)
    try:
        with suppress(AccountError):
            People(state).add("bench", "admin", "bench")
        return create_login_link(state, "bench")
    finally:
        state.close()


def _pages(browser: httpx.Client, client: Client, events: int, progress: Progress) -> dict[str, Any]:
    some = next(iter(client.alerts()))
    session = events // SESSION_EVENTS // 2
    agent = f"agent-{session % AGENTS:02d}"
    paths = {
        "queue_ms": "/alerts",
        "queue_page_10_ms": "/alerts?page=10",
        "queue_filtered_ms": f"/alerts?level=high&level=critical&agent={agent}",
        "queue_by_rule_ms": "/alerts?group=rule",
        "queue_search_ms": "/alerts?q=payment",
        "drawer_ms": f"/alerts/{some['id']}/drawer",
        "baseline_ms": f"/alerts/{some['id']}/baseline",
        "session_ms": f"/sessions/run-{session}",
        "agent_ms": f"/agents/{agent}",
        "incidents_ms": "/incidents",
        "api_alerts_ms": "/api/v1/alerts",
    }
    found = {}
    for number, (name, path) in enumerate(paths.items()):
        progress("pages", number, len(paths))
        found[name] = _timed(browser, path)
    progress("pages", len(paths), len(paths))
    return found


def _timed(browser: httpx.Client, path: str) -> dict[str, float]:
    took = []
    for _ in range(REQUESTS + 1):
        begun = time.perf_counter()
        browser.get(path).raise_for_status()
        took.append((time.perf_counter() - begun) * 1000)
    return {"cold": round(took[0], 1), **_spread(took[1:])}


def _in_browser(data: Path, url: str, client: Client) -> dict[str, Any]:
    with open_page() as page:
        if page is None:
            return {"rows_visible_ms": None, "live_update_ms": None}
        page.goto(f"{url}/login?token={_link(data)}")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{url}/alerts")
        visits = [_visit(page, url) for _ in range(VISITS)]
        news = [_news(page, url, client, number) for number in range(NEWS)]
    return {"rows_visible_ms": _spread(visits), "live_update_ms": _spread(news)}


def _visit(page: Any, url: str) -> float:
    page.goto("about:blank")
    begun = time.perf_counter()
    page.goto(f"{url}/alerts", wait_until="commit")
    page.locator("table.alerts tbody tr").first.wait_for(state="visible")
    return (time.perf_counter() - begun) * 1000


def _news(page: Any, url: str, client: Client, number: int) -> float:
    """From the moment the alert is filed, by the time written on it, until the page says so."""
    page.goto(f"{url}/alerts")
    page.locator("#live[data-state=on]").wait_for()
    # spread over the interval at which the stream looks, or every measurement would meet it at one point
    page.wait_for_timeout(1500 + 61 * number)
    session = f"news-{number}"
    client.send(_denied_and_run(session), live=True)
    page.locator(".news").wait_for(state="visible")
    seen = time.time_ns() // 1000
    first = min(alert["created_at"] for alert in client.alerts(session=session))
    return float(seen - first) / 1000


def _denied_and_run(session: str) -> list[bytes]:
    """What fires "Tool ran although it had been denied"."""
    call = {"agent_id": f"of-{session}", "session_id": session, "tool_name": "pay", "tool_call_id": session}
    steps: list[dict[str, Any]] = [
        {"event_type": "policy.checked", "policy_decision": "deny", "outcome": "blocked"},
        {"event_type": "tool.executed", "outcome": "success"},
    ]
    at = datetime.now(UTC)
    told = []
    for number, step in enumerate(steps):
        moment = (at + timedelta(milliseconds=number)).isoformat()
        told.append({**call, **step, "event_id": f"{session}-{number}", "timestamp": moment})
    return [json.dumps(one).encode() for one in told]


def _spread(took: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(took, [50, 95])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "max": round(max(took), 1)}
