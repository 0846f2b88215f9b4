"""Context that comes in a later request: revisions, inheritance, keys, restarts, folded calls."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from monitor.events import INHERITED, REPEAT_OF
from monitor.pipeline import Intake, Receipt
from monitor.settings import EdgeSettings, Settings
from monitor.sources.admission import Busy
from monitor.sources.call_memory import CallMemory
from monitor.sources.commit import Committer
from monitor.sources.context import SpanContext
from monitor.sources.deadletters import DeadLetters
from monitor.sources.gate import Gate
from monitor.sources.keys import Sender
from monitor.sources.late import lacking
from monitor.sources.recall import recall
from monitor.sources.seen import CONFLICT, Seen
from monitor.sources.spool import SpoolWriter
from monitor.sources.trace_memory import TraceMemory
from tests.sources.live import stored_events

KEY = Sender("key_1", "default")
TRACE = "ab" * 16
NOW = datetime.now(UTC)

Sent = tuple[list[dict[str, object]], list[SpanContext]]


def span(number: int | str) -> str:
    return f"{number:0>16}"


def context(number: int, parent: int | None = None, trace: str = TRACE, **says: object) -> SpanContext:
    return SpanContext(trace, span(number), "" if parent is None else span(parent), says)


def call(
    number: int, parent: int | None = None, kind: str = "tool.executed", trace: str = TRACE, **columns: object
) -> dict[str, object]:
    """A mapped event whose agent is not known, unless ``agent_id`` is among the columns."""
    known: dict[str, object] = {
        "event_id": f"e{number}",
        "event_type": kind,
        "timestamp": NOW + timedelta(milliseconds=number),
        "correlation_id": trace,
        "span_id": span(number),
        "agent_id": "shop",
        "source": "otel-genai/1 test",
    }
    if "agent_id" not in columns:
        known["identity"] = "provisional"
    if parent is not None:
        known["parent_span_id"] = span(parent)
    return {**known, **columns}


def child(number: int, parent: int, **columns: object) -> Sent:
    """A request with one span that names no agent."""
    trace = str(columns.get("trace", TRACE))
    return [call(number, parent, **columns)], [context(number, parent, trace)]  # type: ignore[arg-type]


def root(number: int, **says: object) -> Sent:
    """A request with a span that is no agent's event but says who the agent is."""
    return [], [context(number, None, **says)]  # type: ignore[arg-type]


class Site:
    """The edge's own parts on one folder; each ``send`` is a request."""

    def __init__(self, data: Path, memory: TraceMemory | None = None) -> None:
        settings = Settings(data=data)
        self.spool = settings.spool_folder
        seen = Seen.load(self.spool)
        writer = SpoolWriter(self.spool, settings.spool.seal_bytes)
        self.committer = Committer(writer, seen, DeadLetters(data / "dead"), settings)
        self.intake = Intake(Gate(EdgeSettings(), now=lambda: NOW), self.committer, traces=memory)
        recall(self.intake.late, self.spool)

    async def __aenter__(self) -> Site:
        self.committer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.committer.drain()

    async def send(self, sent: Sent, sender: Sender = KEY) -> Receipt:
        return await self.intake.receive(sender, *sent)


def stored(data: Path, *requests: Sent | tuple[Sent, Sender]) -> list[dict[str, Any]]:
    """What the spool holds after these requests, each with a key of its own or the usual one."""

    async def run() -> None:
        async with Site(data) as site:
            for one in requests:
                if isinstance(one[1], Sender):
                    await site.send(one[0], one[1])  # type: ignore[arg-type]
                else:
                    await site.send(one)  # type: ignore[arg-type]

    asyncio.run(run())
    return stored_events(data / "spool")


def brief(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int, str, str]]:
    return [(row["event_id"], row.get("revision", 0), row["agent_id"], row["identity"]) for row in rows]


def test_an_ancestor_in_a_later_request_names_the_agent_of_a_stored_event(tmp_path: Path) -> None:
    sent = (child(2, 1, tool_name="refund", tool_args="{}"), root(1, agent_id="shop/clerk", session_id="s1"))
    rows = stored(tmp_path, *sent)
    assert brief(rows) == [("e2", 0, "shop", "provisional"), ("e2", 1, "shop/clerk", "declared")]
    first, revision = rows
    assert "session_id" not in first
    assert revision == {
        "event_id": "e2", "event_type": "tool.executed", "timestamp": first["timestamp"],
        "ingested_at": revision["ingested_at"], "tenant": "default", "agent_id": "shop/clerk",
        "identity": "declared", "session_id": "s1", "correlation_id": TRACE, "revision": 1,
        "span_id": span(2), "parent_span_id": span(1), "source": "otel-genai/1 test",
    }  # fmt: skip


def test_a_span_whose_ancestor_came_before_inherits_at_once_and_says_what(tmp_path: Path) -> None:
    rows = stored(tmp_path, root(1, agent_id="shop/clerk", session_id="s1", initiator_id="u"), child(2, 1))
    assert brief(rows) == [("e2", 0, "shop/clerk", "declared")]
    assert (rows[0]["session_id"], rows[0]["initiator_id"], rows[0]["initiator_type"]) == ("s1", "u", "user")
    assert rows[0]["attributes"][INHERITED] == "agent_id,initiator_id,initiator_type,session_id"


def test_context_crosses_spans_that_come_in_any_order(tmp_path: Path) -> None:
    rows = stored(tmp_path, child(3, 2), root(1, agent_id="shop/clerk"), ([], [context(2, 1)]))
    assert brief(rows) == [("e3", 0, "shop", "provisional"), ("e3", 1, "shop/clerk", "declared")]


def test_the_nearest_agent_wins_and_the_one_above_delegated(tmp_path: Path) -> None:
    task = call(3, 2, "task.created", agent_id="shop/helper")
    sent = [task], [context(3, 2, agent_id="shop/helper")]
    rows = stored(
        tmp_path,
        child(4, 3),
        sent,
        ([], [context(2, 1)]),
        root(1, agent_id="shop/boss", session_id="s"),
    )
    named = [row for row in rows if row["event_id"] == "e4"]
    assert [row["agent_id"] for row in named] == ["shop", "shop/helper", "shop/helper"]
    assert [row.get("revision") for row in named] == [None, 1, 2]
    assert named[2]["session_id"] == "s"
    assert "delegated_by" not in named[2]
    late = next(row for row in rows if row["event_id"] == "e3" and row.get("revision"))
    assert late["delegated_by"] == "shop/boss"


def test_revisions_stand_before_the_events_of_the_request_that_brought_them(tmp_path: Path) -> None:
    after = [call(5, 1, agent_id="shop/clerk")], [context(1, None, agent_id="shop/clerk"), context(5, 1)]
    assert [row["event_id"] for row in stored(tmp_path, child(2, 1), after)] == ["e2", "e2", "e5"]


def test_two_requests_under_way_at_once_miss_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with Site(tmp_path) as site:
            await asyncio.gather(site.send(child(2, 1)), site.send(root(1, agent_id="shop/clerk")))

    asyncio.run(run())
    assert brief(stored_events(tmp_path / "spool"))[-1] == ("e2", 1, "shop/clerk", "declared")


def test_a_request_sent_again_is_a_repeat_though_more_is_known_by_then(tmp_path: Path) -> None:
    first, parent = child(2, 1), root(1, agent_id="shop/clerk", session_id="s")

    async def run() -> Receipt:
        async with Site(tmp_path) as site:
            for one in (first, parent, parent):
                await site.send(one)
            return await site.send(first)

    assert asyncio.run(run()).duplicates == 1
    rows = stored_events(tmp_path / "spool")
    assert [row.get("revision", 0) for row in rows] == [0, 1]
    assert not any(CONFLICT in row.get("attributes", {}) for row in rows)


def test_what_the_disk_refused_is_revised_when_it_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    async def run() -> None:
        async with Site(tmp_path) as site:
            await site.send(child(2, 1))
            with monkeypatch.context() as patched:
                patched.setattr(os, "fdatasync", refuse)
                with pytest.raises(Busy):
                    await site.send(root(1, agent_id="shop/clerk"))
            for _ in range(200):
                try:
                    await site.send(root(1, agent_id="shop/clerk"))
                    break
                except Busy:
                    await asyncio.sleep(0.05)

    asyncio.run(run())
    rows = stored_events(tmp_path / "spool")
    assert brief(rows) == [("e2", 0, "shop", "provisional"), ("e2", 1, "shop/clerk", "declared")]


def test_a_log_record_that_comes_before_its_own_span_is_named_by_it(tmp_path: Path) -> None:
    log = [call(2, None, source="log")]
    rows = stored(tmp_path, (log, []), ([], [context(2, 1)]), root(1, agent_id="shop/clerk"))  # type: ignore[arg-type]
    assert brief(rows) == [("e2", 0, "shop", "provisional"), ("e2", 1, "shop/clerk", "declared")]
    assert rows[1]["parent_span_id"] == span(1)


# --- liars ---


def test_a_span_of_another_key_names_nobodys_agent(tmp_path: Path) -> None:
    liar = Sender("key_2", "default")
    rows = stored(tmp_path, child(2, 1), (root(1, agent_id="shop/victim", session_id="x"), liar))
    assert brief(rows) == [("e2", 0, "shop", "provisional")]
    rows = stored(tmp_path / "other", root(1, agent_id="shop/clerk"), (child(2, 1), liar))
    assert brief(rows) == [("e2", 0, "shop", "provisional")]


def test_a_replayed_span_names_no_live_agent(tmp_path: Path) -> None:
    replaying = Sender("key_1", "default", replaying=True)
    rows = stored(tmp_path, child(2, 1), (root(1, agent_id="shop/clerk"), replaying))
    assert brief(rows) == [("e2", 0, "shop", "provisional")]


def test_a_key_tied_to_agents_is_widened_by_no_ancestor(tmp_path: Path) -> None:
    tied = Sender("key_3", "default", agents=("shop/a", "shop/b"))
    sent = (child(2, 1), tied), (root(1, agent_id="shop/victim", session_id="s"), tied)
    rows = stored(tmp_path, *sent, (child(3, 1), tied))
    assert {row["agent_id"] for row in rows} == {"shop"}
    assert {row["identity"] for row in rows} == {"provisional"}
    rows = stored(tmp_path / "own", (child(2, 1), tied), (root(1, agent_id="shop/a"), tied))
    assert brief(rows)[-1] == ("e2", 1, "shop/a", "bound")


def test_the_first_word_stands(tmp_path: Path) -> None:
    rows = stored(
        tmp_path, child(2, 1), root(1, agent_id="shop/clerk"), root(1, agent_id="shop/victim"), child(3, 1)
    )
    assert {row["agent_id"] for row in rows} == {"shop", "shop/clerk"}


@pytest.mark.parametrize("revision", [7, 1, -1])
def test_a_revision_that_a_producer_sends_is_an_event_like_any_other(tmp_path: Path, revision: int) -> None:
    gate = Gate(EdgeSettings(), now=lambda: NOW)
    known = {"event_type": "tool.executed", "agent_id": "a", "event_id": "e2", "revision": revision}
    sent = msgspec.json.encode({**known, "timestamp": NOW})
    record = gate.check(sent, KEY)
    assert record.revision is None
    assert record.attributes == {"producer.revision": str(revision)}
    rows = stored(tmp_path, child(2, 1), ([sent], []))  # type: ignore[list-item]
    assert rows[1]["attributes"][CONFLICT] == "e2"


def test_absurd_context_is_left_out_and_loops_end(tmp_path: Path) -> None:
    loop = [context(1, 2), context(2, 1), context(3, 3), SpanContext("t" * 1000, "s", "", {"agent_id": "x"})]
    odd = root(1, agent_id="y" * 5_000, session_id=17, initiator_id="")
    rows = stored(tmp_path, child(4, 1), child(5, 3), ([], loop), odd, child(6, 1))
    assert brief(rows) == [(f"e{n}", 0, "shop", "provisional") for n in (4, 5, 6)]


# --- bounds ---


def test_memory_is_bounded_and_the_key_that_holds_most_gives_way() -> None:
    memory = TraceMemory(max_spans=100)
    memory.learn(("quiet", False), [context(1, None, agent_id="shop/clerk")])
    for number in range(1_000):
        memory.learn(("loud", False), [context(n, None, f"t{number}") for n in range(3)])
    assert len(memory) <= 100
    assert memory.forgotten > 2_000
    assert memory.said(("quiet", False), TRACE, span(1), ("agent_id",), "shop") == {"agent_id": "shop/clerk"}


def test_one_endless_trace_forgets_its_oldest_spans_and_takes_the_ancestor_that_comes_last() -> None:
    memory = TraceMemory()
    scope = ("k", False)
    memory.learn(scope, [context(n, 1) for n in range(2, 6_000)])
    memory.learn(scope, [context(1, None, agent_id="shop/clerk")])
    assert len(memory) == 4_000
    assert memory.said(scope, TRACE, span(5_999), ("agent_id",), "shop") == {"agent_id": "shop/clerk"}


def test_a_trace_that_nobody_touches_is_forgotten_in_time() -> None:
    time = [0.0]
    memory = TraceMemory(max_age=60, clock=lambda: time[0])
    memory.learn(("k", False), [context(1, None, agent_id="shop/clerk")])
    time[0] = 61.0
    memory.learn(("k", False), [context(1, None, "other")])
    assert len(memory) == 1
    assert memory.forgotten == 0


def test_noted_events_count_and_the_revisions_of_one_ancestor_come_in_portions() -> None:
    memory, scope = TraceMemory(max_spans=100_000), ("k", False)
    gate = Gate(EdgeSettings(), now=lambda: NOW)
    for number in range(2, 302):
        memory.learn(scope, [context(number, 1)])
        for part in range(100):
            record = gate.check(call(number, 1, event_id=f"e{number}-{part}"), KEY)
            memory.note(scope, TRACE, span(number), lacking(record, ("agent_id",)))
    assert len(memory) <= 16_000
    memory.learn(scope, [context(1, None, agent_id="shop/clerk")])
    portions = []
    while due := memory.due(scope):
        portions.append(len(due))
        memory.done(scope, due)
    assert max(portions) == 1_000
    assert sum(portions) > 15_000
    assert len(memory) <= 302


# --- restarts ---


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    parent = [call(1, None, "task.completed", agent_id="shop/clerk", session_id="s")]
    told = [context(1, None, agent_id="shop/clerk", session_id="s")]
    requests: list[Sent] = [child(2, 1), child(3, 2), (parent, told), child(4, 3)]  # type: ignore[list-item]
    whole = stored(tmp_path / "whole", *requests)
    for one in requests:
        cut = stored(tmp_path / "cut", one)
    assert plain(cut) == plain(whole)
    assert brief(plain(cut))[1:] == [
        ("e2", 0, "shop", "provisional"),
        ("e2", 1, "shop/clerk", "declared"),
        ("e3", 0, "shop", "provisional"),
        ("e3", 1, "shop/clerk", "declared"),
        ("e4", 0, "shop/clerk", "declared"),
    ]


def plain(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By event and revision, without the time of arrival: revisions come beside what is sent meanwhile."""
    told = [{name: value for name, value in row.items() if name != "ingested_at"} for row in rows]
    return sorted(told, key=lambda row: (row["event_id"], row.get("revision", 0)))


def test_a_log_record_from_before_a_restart_is_named_by_its_span(tmp_path: Path) -> None:
    stored(tmp_path, ([call(2, None, source="log")], []))
    rows = stored(tmp_path, ([], [context(2, 1)]), root(1, agent_id="shop/clerk"))
    assert brief(rows)[1:] == [("e2", 1, "shop/clerk", "declared")]


def test_a_revision_is_not_made_twice_over_a_restart(tmp_path: Path) -> None:
    stored(tmp_path, child(2, 1), root(1, agent_id="shop/clerk"))
    rows = stored(tmp_path, root(1, agent_id="shop/clerk", session_id="late"))
    assert [(row.get("revision", 0), row.get("session_id")) for row in rows] == [
        (0, None),
        (1, None),
        (2, "late"),
    ]


# --- one call, several reports ---


def report(number: int, parent: int | None = None, **columns: object) -> Sent:
    columns = {"tool_name": "refund", "agent_id": "shop/clerk", "session_id": "s", **columns}
    return [call(number, parent, **columns)], [context(number, parent)]  # type: ignore[arg-type]


def repeats(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    marks = {row["event_id"]: row.get("attributes", {}).get(REPEAT_OF) for row in rows}
    return {name: first for name, first in marks.items() if first}


def test_a_call_told_by_another_source_with_the_same_id_is_a_repeat(tmp_path: Path) -> None:
    rows = stored(
        tmp_path,
        report(2, 1, tool_call_id="c1"),
        report(9, None, tool_call_id="c1", source="claude-code", tool_args='{"a": 1}', trace="cd" * 16),
    )
    assert repeats(rows) == {"e9": "e2"}


def test_a_span_around_the_span_of_a_call_is_a_repeat(tmp_path: Path) -> None:
    rows = stored(tmp_path, report(3, 2), ([], [context(2, 1)]), report(1, None, tool_call_id="c1"))
    assert repeats(rows) == {"e1": "e3"}


@pytest.mark.parametrize(
    "other",
    [
        {"tool_call_id": "c1"},  # the id again from the same source and another branch: some models do
        {"tool_call_id": "c2", "source": "log"},
        {"tool_call_id": "c1", "source": "log", "tool_name": "pay"},
        {"tool_call_id": "c1", "source": "log", "tool_args": '{"a": 2}'},
        {"tool_call_id": "c1", "source": "log", "kind": "tool.requested"},
        {"tool_call_id": "c1", "source": "log", "session_id": "s2", "trace": "cd" * 16},
        {"tool_call_id": "c1", "source": "log", "timestamp": NOW + timedelta(seconds=90)},
        {},
    ],
)
def test_two_calls_are_not_taken_for_one(tmp_path: Path, other: dict[str, object]) -> None:
    rows = stored(tmp_path, report(2, 1, tool_call_id="c1", tool_args='{"a": 1}'), report(3, 1, **other))
    assert repeats(rows) == {}


def test_another_key_cannot_make_a_call_a_repeat(tmp_path: Path) -> None:
    liar = Sender("key_2", "default")
    ahead = report(9, None, tool_call_id="c1", source="log")
    rows = stored(tmp_path, (ahead, liar), report(2, 1, tool_call_id="c1"))
    assert repeats(rows) == {}


def test_a_producer_cannot_mark_an_event_as_a_repeat() -> None:
    sent = call(2, 1, attributes={REPEAT_OF: "e1", INHERITED: "tool_name"})
    assert Gate(EdgeSettings(), now=lambda: NOW).check(sent, KEY).attributes == {
        f"producer.{REPEAT_OF}": "e1",
        f"producer.{INHERITED}": "tool_name",
    }


def test_a_call_is_still_folded_after_a_restart(tmp_path: Path) -> None:
    stored(tmp_path, report(2, 1, tool_call_id="c1"))
    rows = stored(tmp_path, report(9, None, tool_call_id="c1", source="log"))
    assert repeats(rows) == {"e9": "e2"}


def test_a_log_record_of_a_model_call_is_a_repeat_of_its_span_and_two_calls_are_two(tmp_path: Path) -> None:
    calls = CallMemory(lambda *_: set())
    scope = ("key_1", False)

    def told(event_id: str, kind: str, number: int) -> Any:
        columns = {
            **call(number, kind="model.invoked"),
            "event_id": event_id,
            "attributes": {"span.kind": kind},
        }
        return Gate(EdgeSettings(), now=lambda: NOW).check(columns, KEY)

    assert calls.first_of(scope, told("span", "CLIENT", 1)) is None
    assert calls.first_of(scope, told("log", "LOG", 1)) == "span"
    assert calls.first_of(scope, told("again", "CLIENT", 1)) is None
    assert calls.first_of(scope, told("other", "CLIENT", 2)) is None


def test_a_report_that_was_not_kept_is_nobodys_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    async def run() -> None:
        async with Site(tmp_path) as site:
            with monkeypatch.context() as patched:
                patched.setattr(os, "fdatasync", refuse)
                with pytest.raises(Busy):
                    await site.send(report(2, 1, tool_call_id="c1"))
            for _ in range(200):
                try:
                    await site.send(report(9, None, tool_call_id="c1", source="log"))
                    break
                except Busy:
                    await asyncio.sleep(0.05)

    asyncio.run(run())
    rows = stored_events(tmp_path / "spool")
    assert [row["event_id"] for row in rows] == ["e9"]
    assert repeats(rows) == {}
