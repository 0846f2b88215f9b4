"""Where an exporter cuts its batches changes nothing of what is known in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from monitor.events import REPEAT_OF
from monitor.sources.dialect_set import Dialects
from monitor.sources.otlp import Span
from monitor.sources.otlp_json import decode_json, decode_json_logs
from monitor.sources.seen import CONFLICT
from tests.sources.live import stored_events
from tests.sources.spans import agent, request, span, tool
from tests.sources.test_late_context import KEY, Site
from tests.sources.test_otlp_captures import CAPTURES, runs

FRAMEWORKS = [
    *("pydantic-ai", "google-adk", "openai-agents-openinference", "langchain-openinference", "strands"),
    *("mcp-sdk", "langchain-traceloop", "claude-code"),
]
DIALECTS = Dialects.load()

Event = dict[str, Any]


def stored(data: Path, requests: Sequence[Sequence[Span]]) -> list[Event]:
    """What the spool holds after these requests."""

    async def run() -> None:
        async with Site(data) as site:
            for one in requests:
                mapped = DIALECTS.map(one)
                receipt = await site.intake.receive(KEY, mapped.events, mapped.contexts)
                assert receipt.rejected == []

    asyncio.run(run())
    return stored_events(data / "spool")


def corrected(rows: Sequence[Event]) -> list[Event]:
    """The events with what their revisions say, without those that report something once more."""
    found: dict[str, Event] = {}
    for row in rows:
        known = found.setdefault(row["event_id"], {})
        attributes = {**known.get("attributes", {}), **row.get("attributes", {})}
        known.update({**row, "attributes": attributes})
    return [event for event in found.values() if REPEAT_OF not in event.get("attributes", {})]


COLUMNS = ("event_type", "span_id", "agent_id", "identity", "session_id", "policy_decision", "outcome")


BY_FIRST = {
    "mcp-sdk/run1_client": "four spans report one call: in one request the fullest stands for it, "
    "over several the one that came first, and a failure that only another one shows is on that",
}
"""Runs whose tool calls are told by another span, with the reason."""


def told(rows: Sequence[Event], columns: Sequence[str] = COLUMNS) -> list[tuple[str, ...]]:
    return sorted(tuple(str(event.get(name)) for name in columns) for event in corrected(rows))


def sent(run: str) -> list[list[Span]]:
    """The records of a captured run, by request."""
    found = []
    for file in sorted((CAPTURES / run).glob("*.json")):
        raw = file.read_bytes()
        decoded = (decode_json if b"resourceSpans" in raw else decode_json_logs)(raw, 10_000)
        found.append([one for one in decoded if isinstance(one, Span)])
    return found


def spans(*parts: dict[str, Any]) -> list[Span]:
    return [one for one in decode_json(request(*parts), 100) if isinstance(one, Span)]


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="the captured payloads (../shared/otlp) are not here")
@pytest.mark.parametrize("run", runs(*FRAMEWORKS))
def test_one_span_a_request_tells_the_same_as_all_together(run: str, tmp_path: Path) -> None:
    whole = stored(tmp_path / "whole", sent(run))
    single = stored(tmp_path / "single", [[one] for one in chain.from_iterable(sent(run))])
    columns = [name for name in COLUMNS if run not in BY_FIRST or name not in ("span_id", "outcome")]
    assert told(single, columns) == told(whole, columns)
    again = stored(tmp_path / "whole", [[one] for one in chain.from_iterable(sent(run))])
    assert not [row for row in again if CONFLICT in row.get("attributes", {})]


def test_a_session_id_further_up_in_a_later_request_beats_a_conversation_id(tmp_path: Path) -> None:
    parts = [tool(2, 1, gen_ai__conversation__id="c"), agent(1, session__id="s")]
    rows = stored(tmp_path, [spans(one) for one in parts])
    assert {event["session_id"] for event in corrected(rows)} == {"s"}
    later = stored(tmp_path / "later", [spans(one) for one in reversed(parts)])
    assert {event["session_id"] for event in corrected(later)} == {"s"}
    (called,) = [event for event in later if event["event_type"] == "tool.executed"]
    assert called["attributes"]["said.session_id"] == "c"
    assert "session_id" in called["attributes"]["watchkeeper.inherited"].split(",")


def test_sent_again_in_another_cut_is_a_repeat_and_no_conflict(tmp_path: Path) -> None:
    inner = span(3, 2, name="tools/call refund", mcp__method__name="tools/call", status={"code": 2})
    parts = [inner, tool(2, 1, gen_ai__conversation__id="c"), agent(1, session__id="s", user__id="u")]
    for name, cuts in {
        "whole first": [spans(*parts), *(spans(one) for one in parts)],
        "single first": [*(spans(one) for one in parts), spans(*parts)],
    }.items():
        rows = stored(tmp_path / name, cuts)
        assert not [row for row in rows if CONFLICT in row.get("attributes", {})], name


def test_other_content_under_the_same_id_is_a_conflict_all_the_same(tmp_path: Path) -> None:
    top = agent(1, session__id="s")
    said = {"gen_ai__conversation__id": "c", "gen_ai__tool__call__arguments": "{}"}
    first = tool(2, 1, **said)
    for number, other in enumerate(({"gen_ai__conversation__id": "d"}, {"x": "y"})):
        again = tool(
            2, 1, **{"gen_ai__conversation__id": "c", "gen_ai__tool__call__arguments": "{}", **other}
        )
        rows = stored(tmp_path / str(number), [spans(first, top), spans(again, top)])
        assert [row for row in rows if CONFLICT in row.get("attributes", {})]
