"""Any JSON objects as events: what the reader makes of logs that were never written for Watchkeeper."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.events import arrow_batch
from monitor.frames import to_frame
from monitor.settings import EdgeSettings
from monitor.sources.anyjson import AnyJson
from monitor.sources.gate import Gate
from monitor.sources.keys import Sender

READ = ("event_id", "event_type", "timestamp", "agent_id", "tool_args", "input_tokens", "data_accessed")
SENDER = Sender(key_id="k", tenant="default", agents=(), scopes=frozenset({"ingest"}), replaying=False)


def read(*lines: Any, keys: tuple[str, ...] = ()) -> tuple[pl.DataFrame, list[Any]]:
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return AnyJson("log.ndjson", READ, keys).frame(raw, range(1, len(raw) + 1))


def column(name: str, *lines: Any, keys: tuple[str, ...] = ()) -> list[Any]:
    return read(*lines, keys=keys)[0][name].to_list()


def test_an_event_without_an_id_is_known_by_its_file_and_line() -> None:
    assert column("event_id", {"a": 1}, {"event_id": "x"}) == ["log.ndjson:1", "x"]


def test_an_event_without_a_time_comes_when_the_one_before_it_came() -> None:
    found = column(
        "timestamp",
        {},
        {"timestamp": "2026-01-05T10:00:00+01:00"},
        {},
        {"timestamp": 1.5},
        {"timestamp": "?"},
    )
    assert [moment.isoformat() for moment in found] == [
        "1970-01-01T00:00:00+00:00",
        "2026-01-05T09:00:00+00:00",
        "2026-01-05T09:00:00+00:00",
        "1970-01-01T00:00:01.500000+00:00",
        "1970-01-01T00:00:01.500000+00:00",
    ]


def test_the_time_of_the_last_line_goes_on_in_the_next_chunk() -> None:
    reader = AnyJson("log", READ, ())
    reader.frame([b'{"timestamp": "2026-01-05T10:00:00"}'], [1])
    frame, _ = reader.frame([b"{}"], [2])
    assert frame["timestamp"][0].isoformat() == "2026-01-05T10:00:00+00:00"


def test_keys_are_reached_by_name_and_by_dots() -> None:
    lines = (
        {"user.name": "a"},
        {"user": {"name": "b", "id": 7}},
        {"attributes": {"user": {"name": "c"}}},
        {"attributes": {"user.name": "d"}},
        {"user": '{"name": "e"}'},
        {"user": "nobody"},
    )
    assert column("attributes.user.name", *lines, keys=("user.name",)) == ["a", "b", "c", "d", "e", None]
    assert column(
        "attributes.tool_args.to",
        {"tool_args": {"to": "x"}},
        {"tool_args": '{"to": "y"}'},
        keys=("tool_args.to",),
    ) == ["x", "y"]


def test_values_are_texts_as_the_gate_writes_them() -> None:
    lines = [{"k": value} for value in ("t", 5, 1.50, True, None, {"a": [1]}, [1, "z"])]
    assert column("attributes.k", *lines, keys=("k",)) == [
        "t",
        "5",
        "1.5",
        "true",
        None,
        '{"a":[1]}',
        '[1,"z"]',
    ]


def test_what_does_not_fit_its_column_is_left_out_of_it() -> None:
    assert column(
        "input_tokens", {"input_tokens": "12"}, {"input_tokens": "many"}, {"input_tokens": 2**70}
    ) == [12, None, None]
    assert column("data_accessed", {"data_accessed": "orders"}, {"data_accessed": ["a", 1]}) == [
        ["orders"],
        ["a", "1"],
    ]
    assert column("tool_args", {"tool_args": {"to": "x"}}) == ['{"to":"x"}']


def test_a_line_that_is_no_object_is_refused_alone() -> None:
    frame, rejections = read(
        {"event_id": "a"}, b"[1]", b"{broken", b'{"tool_args": "\xff"}', {"event_id": "b"}
    )
    assert frame["event_id"].to_list() == ["a", "b"]
    assert [one.index for one in rejections] == [2, 3, 4]
    frame, rejections = read(b"[1]", keys=("*",))
    assert (frame.height, len(rejections)) == (0, 1)


VALUES = st.text('ab{}"1. é', max_size=8) | st.integers(-5, 5) | st.booleans() | st.floats(-9, 9, width=16)
NESTED = st.recursive(
    VALUES,
    lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3) | st.lists(inner, max_size=2),
)
EVENTS = st.fixed_dictionaries(
    {
        "event_type": st.just("tool.executed"),
        "agent_id": st.just("a"),
        "timestamp": st.just("2026-01-05T10:00:00Z"),
        "event_id": st.just("e"),
    },
    optional={
        "k": NESTED,
        "x": NESTED,
        "x.y": VALUES,
        "attributes": st.dictionaries(st.sampled_from(["x", "m", "x.y.z"]), NESTED),
    },
)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=4))
def test_what_passes_the_gate_reads_the_same(events: list[dict[str, Any]]) -> None:
    keys = ("k", "m", "x", "x.y", "x.y.z")
    kept = [event for event in events if not {*event} & {*event.get("attributes", {})}]
    gate = Gate(EdgeSettings())
    gated = to_frame(arrow_batch([gate.check(json.dumps(event).encode(), SENDER) for event in kept]), keys)
    frame, _ = read(*kept, keys=keys)
    for key in keys:
        name = f"attributes.{key}"
        assert frame[name].to_list() == gated[name].to_list()
