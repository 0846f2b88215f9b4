"""History as judged and as corrected: what a revision changes in what is read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pyarrow as pa
import pytest

from monitor.events import REPLAYED, arrow_batch
from monitor.store.clickhouse import EventStore, placed
from monitor.store.queries import Readers
from tests.builders import START, event


def late(at: float, event_id: str, **columns: Any) -> Any:
    """An event of a span whose agent and session were not known when it came."""
    known = {"agent_id": "svc", "identity": "provisional", "session_id": None, "span_id": f"s{at:g}"}
    return event(at=at, event_id=event_id, ingested_at=START, **{**known, **columns})


@pytest.fixture
def ask(store: EventStore) -> Callable[[Callable[[Readers], Awaitable[Any]]], Any]:
    table = placed(
        pa.table(
            arrow_batch(
                [
                    late(1, "e1", tool_name="refund"),
                    event(at=2, event_id="e2", ingested_at=START, agent_id="svc/bot"),
                    late(3, "e3"),
                    late(1, "e1", agent_id="svc/bot", identity="declared", session_id="s1", revision=1),
                    late(1, "e1", agent_id="svc/bot", identity="declared", initiator_id="u", revision=2),
                    late(3, "e3", tenant="other", agent_id="svc/spy", session_id="s1", revision=1),
                    late(3, "e3", attributes={REPLAYED: "true"}),
                ]
            )
        ),
        1,
    )
    store.insert(table, "t")

    def run(question: Callable[[Readers], Awaitable[Any]]) -> Any:
        readers = Readers(store)

        async def once() -> Any:
            return await question(readers)

        try:
            return asyncio.run(once())
        finally:
            readers.close()

    return run


Ask = Callable[[Callable[[Readers], Awaitable[Any]]], Any]


def test_a_session_holds_as_corrected_what_was_found_to_belong_to_it(ask: Ask) -> None:
    found = ask(lambda readers: readers.session_events("default", "s1"))
    assert [(row["event_id"], row["agent_id"], row["revision"]) for row in found] == [
        ("e1", "svc/bot", 2),
        ("e2", "svc/bot", None),
    ]
    assert (found[0]["tool_name"], found[0]["session_id"], found[0]["initiator_id"]) == ("refund", "s1", "u")
    assert found[0]["identity"] == "declared"


def test_a_session_as_judged_holds_what_was_known_then(ask: Ask) -> None:
    found = ask(lambda readers: readers.session_events("default", "s1", corrected=False))
    assert [row["event_id"] for row in found] == ["e2"]


def test_an_event_by_its_id_is_one_row_corrected_or_as_judged(ask: Ask) -> None:
    [now] = ask(lambda readers: readers.events_by_id(["e1"]))
    [then] = ask(lambda readers: readers.events_by_id(["e1"], corrected=False))
    assert (now["agent_id"], then["agent_id"]) == ("svc/bot", "svc")
    assert (now["revision"], then["revision"]) == (2, None)


def test_a_revision_of_another_tenant_corrects_nothing_here(ask: Ask) -> None:
    found = ask(lambda readers: readers.events_by_id(["e3"]))
    assert [(row["tenant"], row["agent_id"]) for row in found] == [("default", "svc"), ("default", "svc")]


def test_revisions_are_no_events_of_their_own(ask: Ask) -> None:
    assert ask(lambda readers: readers.count()) == 4
    newest = ask(lambda readers: readers.newest(10))
    assert [row["event_id"] for row in newest] == ["e3", "e3", "e2", "e1"]
    assert newest[-1]["agent_id"] == "svc/bot"
    minutes = ask(lambda readers: readers.events_per_minute(0))
    assert sum(row["events"] for row in minutes) == 4
