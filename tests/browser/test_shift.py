"""An analyst's shift on the real daemon, by keyboard alone; and two analysts at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from monitor.client import Unreachable
from tests.browser.chromium import Visit
from tests.daemons import Daemon, running, until

pytestmark = pytest.mark.browser

DENIED = "Tool ran although it had been denied"
MEGABYTE = "<b>A</b>\u202e\x1b[31m=cmd()\n" * 45_000


def denied_and_run(agent: str, session: str, **columns: Any) -> list[bytes]:
    """Events that fire a shipped rule: a call is denied, and runs all the same."""
    now = datetime.now(UTC)
    call = {
        "tool_name": "send_payment",
        "tool_call_id": f"c-{session}",
        "agent_id": agent,
        "session_id": session,
    }
    steps = [
        {"event_type": "task.created", "agent_id": agent, "session_id": session, "task_goal": "Pay INV-7."},
        {"event_type": "tool.requested", **call, **columns},
        {"event_type": "policy.checked", **call, "policy_decision": "deny", "outcome": "blocked"},
        {"event_type": "tool.executed", **call, "outcome": "success", **columns},
    ]
    return [
        json.dumps(
            {**step, "event_id": f"{session}-{n}", "timestamp": (now + timedelta(milliseconds=n)).isoformat()}
        ).encode()
        for n, step in enumerate(steps)
    ]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, chrome: Browser) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("shift") / "data") as started:
        yield started


def fire(daemon: Daemon, agent: str, session: str, **columns: Any) -> dict[str, Any]:
    """Have the shipped rule fire; the alert."""
    assert daemon.client.send(denied_and_run(agent, session, **columns), live=True)["rejected"] == []

    def fired() -> list[dict[str, Any]]:
        found = daemon.client.alerts(session=session)
        return [one for one in found if one["title"] == DENIED]

    return until(fired, "the alert")[0]


@contextmanager
def signed_in(chrome: Browser, daemon: Daemon, name: str) -> Iterator[Visit]:
    """Somebody arrives at the queue, by keyboard."""
    if name not in {one["name"] for one in daemon.json("people", "list")}:
        daemon.run("people", "add", name, "--role", "analyst")
    context = chrome.new_context(viewport={"width": 1440, "height": 900})
    visit = Visit(context.new_page(), daemon.runtime.console_url)
    visit.watch()
    visit.page.goto(daemon.run("login", name).strip())
    expect(visit.page.get_by_role("button", name="Sign in")).to_be_focused()
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_url(f"{visit.url}/alerts")
    yield visit
    assert visit.faults == []
    context.close()


LABEL = """() => {
    const at = document.activeElement;
    if (!at || at === document.body) return "";
    const label = at.labels?.length ? at.labels[0].textContent : at.getAttribute("aria-label");
    return label || at.textContent || "";
}"""


def reach(page: Page, name: str) -> None:
    """Tab to what is called so."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if name in page.evaluate(LABEL):
            return
    raise AssertionError(f"the keyboard does not reach {name!r}")


def seek(page: Page, alert_id: str) -> None:
    """Move the cursor to an alert."""
    for _ in range(60):
        page.keyboard.press("j")
        if page.locator(f"#row-{alert_id}.cursor").count():
            return
    raise AssertionError("j does not reach the alert")


def test_a_shift_by_keyboard_alone(chrome: Browser, daemon: Daemon) -> None:
    alert = fire(daemon, "invoice-agent", "inv-1")
    other = fire(daemon, "support-agent", "ticket-1")
    with signed_in(chrome, daemon, "ana") as visit:
        page, keys = visit.page, visit.page.keyboard
        expect(page.locator(f"#row-{alert['id']}")).to_be_visible()
        seek(page, alert["id"])
        keys.press("Enter")
        drawer = page.locator("#drawer article")
        expect(drawer).to_have_attribute("data-id", alert["id"])
        expect(drawer.locator("header .why")).to_contain_text("send_payment")
        expect(drawer.locator("#baseline")).to_contain_text("earlier session", timeout=15_000)
        keys.press("a")
        expect(drawer.locator("header")).to_contain_text("Acknowledged")
        keys.press("e")
        page.wait_for_url("**/incidents/i_*")
        incident = page.url.rsplit("/", 1)[1]
        reach(page, "Assign to me")
        keys.press("Enter")
        expect(page.locator("main")).to_contain_text("In progress")
        reach(page, "Comment")
        keys.type("The supplier was called.")
        keys.press("Tab")
        keys.press("Enter")
        expect(page.locator(".chronicle")).to_contain_text("The supplier was called.")
        reach(page, "Close…")
        keys.press("Enter")
        reach(page, "Verdict")
        keys.type("True")
        keys.press("Tab")
        keys.type("forged invoice, paid back")
        keys.press("Enter")
        expect(page.locator("main")).to_contain_text("closed it as true positive")
        keys.press("g")
        keys.press("a")
        page.wait_for_url("**/alerts")
        seek(page, other["id"])
        keys.press("s")
        expect(page.locator("#silencing")).to_contain_text("would have hidden 1 alert")
        reach(page, "Why")
        keys.type("the gateway logs denials twice")
        keys.press("Enter")
        expect(page.locator("#notice")).to_contain_text("Silenced for 7 days")
        keys.press("c")
        keys.press("2")
        keys.type("permitted by the owner")
        keys.press("Enter")
        expect(page.locator("#notice")).to_contain_text("Closed")
        keys.press("g")
        keys.press("i")
        page.wait_for_url("**/incidents")
    assert daemon.client.get(f"/api/v1/alerts/{alert['id']}")["verdict"] == "true_positive"
    assert daemon.client.get(f"/api/v1/alerts/{other['id']}")["verdict"] == "benign_positive"
    [silence] = daemon.client.get("/api/v1/silences")["items"]
    assert (silence["owner"], silence["agent_id"]) == ("ana", "support-agent")
    found = daemon.client.get(f"/api/v1/incidents/{incident}")
    assert [entry["kind"] for entry in found["log"]] == ["opened", "taken", "comment", "closed"]
    [listed] = daemon.json("incidents", "list", "--status", "closed", "--agent", "invoice-agent")
    assert (listed["id"], listed["verdict"]) == (incident, "true_positive")
    assert "The supplier was called." in daemon.run("incidents", "show", incident)
    acts = [entry["action"] for entry in daemon.json("audit", "--actor", "ana")]
    assert {"alert.change", "incident.close", "incident.comment", "silence.create"} <= set(acts)
    assert "content.read" in acts


def test_two_analysts_at_once_do_not_overwrite_each_other(chrome: Browser, daemon: Daemon) -> None:
    alert = fire(daemon, "claims-agent", "claim-1")
    with signed_in(chrome, daemon, "ana") as first, signed_in(chrome, daemon, "bea") as second:
        seek(second.page, alert["id"])
        seek(first.page, alert["id"])
        first.page.keyboard.press("i")
        expect(first.page.locator(f"#row-{alert['id']}")).to_contain_text("In progress")
        expect(second.page.locator(".news")).to_have_text(re.compile("1 changed, press"))
        second.page.keyboard.press("a")
        expect(second.page.locator("#notice .bad")).to_contain_text("look again")
        for each in (first, second):
            each.page.goto(f"{each.url}/alerts/{alert['id']}")
            each.page.keyboard.press("e")
            each.page.wait_for_url("**/incidents/i_*")
        for each in (first, second):
            reach(each.page, "Assign to me")
        first.page.keyboard.press("Enter")
        expect(first.page.locator("main")).to_contain_text("took it")
        second.page.keyboard.press("Enter")
        expect(second.page.locator("body")).to_contain_text("look again")
        second.faults.clear()  # Chromium writes the refusal, a 412, into its console
    assert daemon.client.get(f"/api/v1/alerts/{alert['id']}")["status"] == "in_progress"
    found = daemon.client.get("/api/v1/incidents", agent="claims-agent")["items"]
    assert [incident["owner"] for incident in found] == ["ana"]


def test_a_megabyte_of_hostile_text_is_shown_harmless(chrome: Browser, daemon: Daemon) -> None:
    alert = fire(daemon, "loud-agent", "loud-1", tool_args=MEGABYTE, tool_result=MEGABYTE)
    until(lambda: events_of(daemon, "loud-1")[3:], "the events to be stored")
    with signed_in(chrome, daemon, "ana") as visit:
        page = visit.page
        paths = [
            f"/alerts?open={alert['id']}",
            f"/alerts/{alert['id']}",
            "/sessions/loud-1",
            f"/incidents/{alert_incident(daemon, alert)}",
            "/agents/loud-agent",
        ]
        for path in paths:
            page.goto(f"{visit.url}{path}")
            expect(page.locator("main")).to_contain_text("loud")
            assert len(page.content()) < 400_000, path
            assert page.locator("main b", has_text=re.compile("^A$")).count() == 0
            assert "\u202e" not in page.content()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def events_of(daemon: Daemon, session: str) -> list[Any]:
    with suppress(Unreachable):
        return list(daemon.client.get("/api/v1/events", session_id=session)["items"])
    return []


def alert_incident(daemon: Daemon, alert: dict[str, Any]) -> str:
    found: str = daemon.client.get("/api/v1/incidents", agent=alert["agent_id"])["items"][0]["id"]
    return found
