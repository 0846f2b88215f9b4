"""What an agent does now beside what it usually does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from monitor.events import arrow_batch
from monitor.store.clickhouse import EventStore, placed
from monitor.web.baseline import compared
from tests.builders import event
from tests.web.conftest import Browser
from tests.web.seeding import HOSTILE, Stand, finding

NOW = datetime.now(UTC)


def row(**values: object) -> dict[str, object]:
    known = {"model_calls": 0, "tool_calls": 0, "blocked": 0, "failed": 0, "output_tokens": 0, "seconds": 1.0}
    return {"events": 1, "tools": ["read"], **known, **values}


def test_the_numbers_are_those_of_the_sessions_before() -> None:
    usual = [row(events=number) for number in range(1, 101)]
    found = compared(row(events=96, blocked=4, tools=["read", "send", ""]), usual, "session")
    measures = {one.name: one for one in found.measures}
    events = measures["events"]
    assert (events.low, events.median, events.high) == pytest.approx((5.95, 50.5, 95.05))
    assert (events.odd, events.below) == (True, 0.95)
    assert measures["blocked calls"].odd
    assert not measures["seconds it took"].odd
    assert "model calls" not in measures
    assert measures["different tools"].now == 2
    assert found.new_tools == ("send",)
    assert all(0 <= x <= 200 for one in found.measures for x in one.x.values())


def acts(store: EventStore, agent: str, session: str | None, begun: datetime, count: int, tool: str) -> None:
    told = [
        event(
            "tool.executed",
            agent_id=agent,
            session_id=session,
            tool_name=tool,
            event_id=f"{agent}-{session}-{begun.timestamp()}-{number}",
            timestamp=begun + timedelta(seconds=number),
        )
        for number in range(count)
    ]
    store.insert(placed(pa.Table.from_batches([arrow_batch(told)]), 41), token=told[0].event_id)


def test_a_session_is_compared_with_those_before_it_and_not_with_later_ones(
    stand: Stand, browser: Browser, store: EventStore
) -> None:
    for number in range(12):
        acts(store, "steady", f"past-{number}", NOW - timedelta(hours=2 + number), 3, "read_page")
    acts(store, "steady", "now", NOW - timedelta(minutes=40), 9, HOSTILE)
    acts(store, "steady", "later", NOW - timedelta(minutes=10), 500, HOSTILE)
    [alert] = stand.file(finding("a", agent_id="steady", session_id="now", ago=2300))
    page = browser.get(f"/alerts/{alert.id}/baseline").text
    assert "12 sessions" in page
    assert "<mark>9</mark>" in page
    assert "Never used before" in page
    assert "<img" not in page
    assert f'hx-get="/alerts/{alert.id}/baseline"' in browser.get(f"/alerts/{alert.id}").text


def test_without_a_session_the_hour_is_compared(stand: Stand, browser: Browser, store: EventStore) -> None:
    half_past = NOW.replace(minute=30) - timedelta(hours=1)
    for number in range(12):
        acts(store, "hourly", None, half_past - timedelta(hours=number), 4, "read_page")
    at = int(half_past.timestamp() * 1e6)
    [alert] = stand.file(
        finding("a", agent_id="hourly", session_id=None, group={"agent_id": "hourly"}, timestamp=at)
    )
    page = browser.get(f"/alerts/{alert.id}/baseline").text
    assert "11 hours" in page
    assert "Never used before" not in page


def test_an_agent_that_is_new_has_nothing_usual(stand: Stand, browser: Browser, store: EventStore) -> None:
    acts(store, "fresh", "only", NOW, 4, "read_page")
    one, other = stand.file(
        finding("a", agent_id="fresh", session_id="only"), finding("b", agent_id="unseen", session_id="x")
    )
    assert "too few to call anything usual" in browser.get(f"/alerts/{one.id}/baseline").text
    assert "No event of it" in browser.get(f"/alerts/{other.id}/baseline").text
    assert browser.get("/alerts/a_none/baseline").status_code == 404
