"""The page of a session: its story drawn, and every event."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import pyarrow as pa

from monitor.events import arrow_batch
from monitor.store.clickhouse import EventStore
from monitor.web.story import story
from tests.builders import event
from tests.web.conftest import Browser
from tests.web.seeding import HOSTILE, Stand, finding, placed

BEGIN = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
ADDRESS = "https://drop.example/x1"


def told(*steps: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Events as the store gives them, a second apart."""
    return [
        {"event_id": f"e{n}", "event_type": kind, "moment": n * 1_000_000, **columns}
        for n, (kind, columns) in enumerate(steps)
    ]


def tool(name: str, call: str | None = None, **columns: Any) -> dict[str, Any]:
    return {"tool_name": name, "tool_call_id": call, **columns}


def test_a_call_is_drawn_once_with_what_became_of_it() -> None:
    drawn = story(
        told(
            ("task.created", {}),
            ("tool.requested", tool("pay", "c1")),
            ("policy.checked", tool("pay", "c1", policy_decision="deny", policy_id="limits")),
            ("tool.requested", tool("pay", "c2")),
            ("human.reviewed", tool("pay", "c2", reviewer_id="ana", review_decision="approve")),
            ("tool.executed", tool("pay", "c2", outcome="success")),
            ("tool.executed", tool("read", "c3", outcome="failure")),
            ("tool.requested", tool("post", "c4")),
        ),
        (),
        (),
    )
    assert [(c.tool, c.state, c.approved, c.refused) for c in drawn.calls] == [
        ("pay", "blocked", "", "limits"),
        ("pay", "ran", "ana", ""),
        ("read", "failed", "", ""),
        ("post", "asked", "", ""),
    ]


def test_calls_without_an_id_are_told_apart_by_their_requests() -> None:
    steps = [("tool.requested", tool("read")), ("tool.executed", tool("read", outcome="success"))] * 3
    assert len(story(told(*steps), (), ()).calls) == 3
    runs = [("tool.executed", tool("read", outcome="success"))] * 4
    assert len(story(told(*runs), (), ()).calls) == 4


def test_a_suspicious_value_is_drawn_from_its_source_to_where_it_was_used() -> None:
    events = told(
        ("tool.executed", tool("read_page", "c1", outcome="success")),
        ("tool.executed", tool("read_page", "c2", outcome="success")),
        ("tool.requested", tool("post", "c3")),
    )
    evidence = {
        "observed": {
            "tool": "post",
            "values": [{"argument": "url", "value": ADDRESS, "source_tool": "read_page"}, "odd", {}],
        }
    }
    flags = [("a1", "high", "Odd", frozenset({"e2"}))]
    [flow] = story(events, flags, [evidence, None, {"observed": 3}, {"observed": {"values": {}}}]).flows
    assert (flow.argument, flow.value, flow.source) == ("url", ADDRESS, "read_page")
    second, third = story(events, flags, [evidence]).calls[1:]
    numbers = [float(one) for one in re.findall(r"-?\d+", flow.d)]
    assert second.x < numbers[0] < second.x + 168
    assert third.x < numbers[-2] < third.x + 168


def test_a_long_session_is_drawn_in_part_and_says_so() -> None:
    drawn = story(told(*[("tool.requested", tool("read", f"c{n}")) for n in range(300)]), (), ())
    assert (len(drawn.calls), drawn.left_out) == (240, 60)
    assert all(call.y + 40 <= drawn.height for call in drawn.calls)
    assert all(call.x + 168 <= drawn.width for call in drawn.calls)


def stored(store: EventStore, name: str, count: int = 3, **columns: Any) -> None:
    events = [
        event(
            "tool.executed",
            session_id=name,
            event_id=f"{name}-{n}",
            timestamp=BEGIN + timedelta(seconds=n),
            tool_name=columns.get("tool", f"tool_{n}"),
            tool_call_id=f"{name}-{n}",
            outcome="success",
            **{key: value for key, value in columns.items() if key != "tool"},
        )
        for n in range(count)
    ]
    store.insert(
        placed(pa.Table.from_batches([arrow_batch(events)]), crc32(name.encode()) % 10_000), token=name
    )


def test_the_page_shows_story_events_and_where_the_alert_fired(
    stand: Stand, browser: Browser, store: EventStore
) -> None:
    stored(store, "sess-1")
    [alert] = stand.file(finding("one", session_id="sess-1", event_ids=("sess-1-1",), level="high"))
    page = browser.get("/sessions/sess-1?tenant=default")
    assert page.status_code == 200
    assert page.text.count('<g class="call') == 3
    assert page.text.count('class="call ran flagged"') == 1
    assert page.text.count(f'href="/alerts/{alert.id}"') == 3
    assert [*re.findall(r"tool_\d", page.text)].count("tool_2") >= 2
    assert 'href="/sessions/sess-1?tenant=default"' in browser.get(f"/alerts/{alert.id}").text


def test_a_long_session_comes_in_pages(stand: Stand, browser: Browser, store: EventStore) -> None:
    stored(store, "sess-long", 450)
    first = browser.get("/sessions/sess-long")
    assert first.text.count('<details class="event') == 200
    assert "page=2" in first.text
    last = browser.get("/sessions/sess-long?page=3")
    assert last.text.count('<details class="event') == 50
    assert browser.get("/sessions/sess-long?page=77").text.count('<details class="event') == 50


def test_hostile_text_stays_text_in_the_drawing_too(
    stand: Stand, browser: Browser, store: EventStore
) -> None:
    for number, text in enumerate((HOSTILE, "=cmd|' /C calc'!A0", "<script>alert(1)</script>")):
        name = f"hostile-{number}"
        stored(store, name, 1, tool=text, target=text, agent_id=text[:200] or "x")
        page = browser.get(f"/sessions/{name}")
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "\x1b" not in page.text
        assert "\u202e" not in page.text


def test_a_session_that_nobody_stored_is_told_as_such(browser: Browser) -> None:
    assert browser.get("/sessions/nothing").status_code == 404
    assert browser.get("/sessions/inv-20931?tenant=rival").status_code == 404


def test_an_id_with_slashes_finds_its_page(stand: Stand, browser: Browser, store: EventStore) -> None:
    stored(store, "team/a?b=c", 1)
    assert browser.get("/sessions/team/a%3Fb%3Dc").status_code == 200
