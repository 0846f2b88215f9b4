"""How the spool's records become the batches that detection judges."""

from __future__ import annotations

import pyarrow as pa
import pytest

from monitor import pipeline
from monitor.events import arrow_batch
from monitor.frames import to_bytes
from monitor.pipeline import micro_batches
from monitor.sources.spool import Entry, Position, Record
from tests.builders import event


def commit(*events: object) -> Record:
    return Record(Entry.EVENTS, to_bytes(arrow_batch(events)), Position())


def sizes(records: list[Record], limit: int) -> list[int]:
    return [item.num_rows for item in micro_batches(records, limit) if isinstance(item, pa.Table)]


def test_neighbouring_commits_are_judged_together_up_to_the_limit_and_a_tick_comes_between() -> None:
    one = commit(event(at=1), event(at=2))
    tick = Record(Entry.TICK, bytes(8), Position())
    assert sizes([one] * 5, 4) == [4, 4, 2]
    assert sizes([one, tick, one, one], 100) == [2, 4]


def test_text_that_packs_well_does_not_make_a_batch_too_large_for_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "MOST_BYTES", 100_000)
    one = commit(event(at=1, tool_result="a" * 60_000))
    assert len(one.payload) < 20_000
    assert sizes([one] * 5, 10_000) == [2, 2, 1]
