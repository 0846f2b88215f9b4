"""The inventory of agents, and the page of one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zlib import crc32

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from monitor.events import arrow_batch
from monitor.inventory import Declaration, Inventory, InventoryError
from monitor.store.clickhouse import EventStore, placed
from monitor.web.agents import DAY, DAYS, WEIGHTS, inventory, risk_by_day
from tests.builders import event
from tests.web.conftest import Browser, key
from tests.web.seeding import HOSTILE, Stand, finding

BEGIN = datetime(2026, 11, 3, 9, 0, tzinfo=UTC)


def seen(store: EventStore, agent: str, *steps: dict[str, object]) -> None:
    events = [
        event(
            "tool.executed",
            agent_id=agent,
            session_id=f"{agent}-s",
            event_id=f"{agent}-{n}",
            timestamp=BEGIN + timedelta(hours=n),
            tool_call_id=f"c{n}",
            **{"tool_name": "read", "outcome": "success", **step},
        )
        for n, step in enumerate(steps)
    ]
    table = placed(pa.Table.from_batches([arrow_batch(events)]), crc32(agent.encode()) % 100_000)
    store.insert(table, token=f"agents-{agent}")


def test_an_agent_that_nobody_declared_stands_out(stand: Stand, browser: Browser, store: EventStore) -> None:
    seen(store, "stranger", {})
    seen(store, "known", {})
    Inventory(stand.state).declare("default", "known", Declaration("ana"), "test")
    rows = dict(
        re.findall(r'<a href="/agents/([^?]+)\?[^"]*">.*?<td>(.*?)</td>', browser.get("/agents").text, re.S)
    )
    assert rows["known"] == "yes"
    assert "never" in rows["stranger"]
    assert "never declared" in browser.get("/agents/stranger").text
    assert "never declared" not in browser.get("/agents/known").text


def test_the_riskiest_comes_first_and_an_undeclared_one_before_its_equal(stand: Stand) -> None:
    stand.file(
        finding("1", agent_id="bad", level="critical"),
        finding("2", agent_id="fine", level="low"),
        finding("3", agent_id="also-fine", level="low"),
    )
    Inventory(stand.state).declare("default", "also-fine", Declaration("ana"), "test")
    with stand.state.read() as session:
        lines = inventory(session, [], Inventory(stand.state).all())
    assert [line.agent_id for line in lines] == ["bad", "fine", "also-fine"]
    assert [line.risk for line in lines] == [WEIGHTS["critical"], WEIGHTS["low"], WEIGHTS["low"]]


def test_versions_are_shown_with_the_time_they_changed_and_what_was_not_declared(
    stand: Stand, browser: Browser, store: EventStore
) -> None:
    seen(
        store,
        "drifter",
        {"model_id": "m-1", "tool_name": "read"},
        {"model_id": "m-1", "tool_name": "read", "outcome": "failure"},
        {"model_id": "m-2", "tool_name": "pay"},
    )
    said = Declaration("ana", "books invoices", "high", ("read",), ("m-1",))
    Inventory(stand.state).declare("default", "drifter", said, "test")
    page = browser.get("/agents/drifter").text
    assert re.search(r"m-1.*m-2</bdi> <span class=\"outcome trouble\">not declared</span>", page, re.S)
    assert re.search(r"pay</bdi> <span class=\"outcome trouble\">not declared</span>", page)
    assert not re.search(r"read</bdi> <span class=\"outcome trouble\">not declared", page)
    assert "books invoices" in page
    assert "2026-11-03T11:00:00" in page
    assert 'href="/sessions/drifter-s?tenant=default"' in page


def test_risk_is_counted_by_day_without_what_proved_false(stand: Stand) -> None:
    today, earlier, false = stand.file(
        finding("1", level="high"), finding("2", level="medium"), finding("3", level="critical")
    )
    with stand.state.write() as session:
        session.merge(earlier).created_at -= 3 * DAY
        stand.desk.change(session, false.id, "ana", status="closed", verdict="false_positive", reason="no")
    with stand.state.read() as session:
        days = risk_by_day(session, ("default", "research-agent"))
        assert risk_by_day(session, ("rival", "research-agent")).bars == ()
    assert [day for day, _ in days.bars] == [DAYS - 4, DAYS - 1]
    assert (days.risks[DAYS - 4], days.risks[DAYS - 1]) == (WEIGHTS["medium"], WEIGHTS["high"])
    assert today.level == "high"


def test_an_analyst_declares_an_agent_on_its_page(stand: Stand, browser: Browser, store: EventStore) -> None:
    seen(store, "new-one", {})
    form = {
        "csrf": browser.csrf,
        "owner": "ana",
        "risk_tier": "high",
        "tools": "read  pay",
        "reason": "known",
    }
    answer = browser.post("/agents/new-one?tenant=default", data=form)
    assert answer.status_code == 303
    declared = Inventory(stand.state).find("default", "new-one")
    assert declared is not None
    assert (declared.owner, declared.tools, declared.declared_by) == ("ana", ["read", "pay"], "ana")
    assert browser.post("/agents/new-one", data={**form, "owner": " "}).status_code == 409


def test_the_api_declares_lists_and_withdraws(stand: Stand, stranger: TestClient) -> None:
    headers, rival = key(stand, "read", "triage"), key(stand, "read", "triage", tenant="rival")
    path = "/api/v1/declared-agents/books"
    assert stranger.put(path, json={"owner": "ana", "models": ["m"]}, headers=headers).status_code == 200
    [found] = stranger.get("/api/v1/declared-agents", headers=headers).json()["items"]
    assert (found["agent_id"], found["models"], found["risk_tier"]) == ("books", ["m"], "medium")
    assert stranger.get("/api/v1/declared-agents", headers=rival).json()["items"] == []
    assert stranger.delete(path, headers=rival).status_code == 403
    assert stranger.delete(path, headers=headers).status_code == 204
    assert stranger.delete(path, headers=headers).status_code == 404


@pytest.mark.parametrize(
    ("agent", "said", "why"),
    [
        ("", Declaration("ana"), "512"),
        ("x", Declaration(" "), "owner"),
        ("x", Declaration("a", "", "odd"), "tier"),
    ],
)
def test_what_cannot_be_declared_is_told(stand: Stand, agent: str, said: Declaration, why: str) -> None:
    with pytest.raises(InventoryError, match=why):
        Inventory(stand.state).declare("default", agent, said, "test")


def test_an_agent_nobody_knows_has_no_page(browser: Browser) -> None:
    assert browser.get("/agents/nobody").status_code == 404


def test_a_hostile_name_stays_text(stand: Stand, browser: Browser, store: EventStore) -> None:
    seen(store, HOSTILE, {"tool_name": HOSTILE, "model_id": HOSTILE})
    for path in ("/agents", browser.get("/agents").text.split('href="/agents/')[1].split('"')[0]):
        page = browser.get(path if path.startswith("/") else f"/agents/{path}".replace("&amp;", "&"))
        assert page.status_code == 200
        assert "<img src=x" not in page.text
        assert "\u202e" not in page.text
