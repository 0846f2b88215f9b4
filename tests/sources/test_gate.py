"""The gate beyond what HTTP shows: what it lets through always fits the spool."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.events import ARROW_SCHEMA, BY_NAME, COLUMNS, Kind, Record, arrow_batch
from monitor.frames import from_bytes, to_bytes
from monitor.settings import EdgeSettings
from monitor.sources.gate import TEXTS, Gate, Rejected
from monitor.sources.jsonkeys import RepeatedKeyError, maybe_repeats, refuse_repeats
from monitor.sources.keys import Sender
from tests.builders import START, event

SENDER = Sender("k", "default")
EVENT = {"event_type": "tool.executed", "agent_id": "a", "timestamp": "2026-01-05T09:30:00Z"}

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate(
        EdgeSettings(max_text_bytes=64, max_name_bytes=32, max_attributes=8),
        lambda: datetime(2026, 2, 1, tzinfo=UTC),
    )


def test_the_schema_and_the_wire_have_the_same_columns_in_the_same_order(gate: Gate) -> None:
    assert gate.check(dict(EVENT), SENDER).__struct_fields__ == Record.__struct_fields__ == tuple(BY_NAME)
    assert {BY_NAME[name].kind for name in TEXTS} == {Kind.STRING}


@given(
    more=st.dictionaries(st.sampled_from([c.name for c in COLUMNS]) | st.text(max_size=8), values, max_size=6)
)
@settings(max_examples=400, deadline=None)
def test_whatever_is_let_through_fits_an_arrow_batch_and_survives_it(
    gate: Gate, more: dict[str, Any]
) -> None:
    raw = json.dumps({**EVENT, **more}, ensure_ascii=False).encode(errors="surrogatepass")
    try:
        record = gate.check(raw, SENDER)
    except Rejected as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.raw == raw
        assert 0 < len(refused.reason) < 400
        assert refused.reason.isprintable()
        return
    (row,) = from_bytes([to_bytes(arrow_batch([record]))]).to_pylist(maps_as_pydicts="strict")
    assert row["event_id"] == record.event_id
    assert row["attributes"] == (record.attributes or {})
    for name in TEXTS:
        assert row[name] is None or len(row[name].encode()) <= 64


keys = st.sampled_from(["a", "b", 'q"', "s\\", "c:", ' :"x":', '\\":', "é", ""])


@st.composite
def documents(draw: st.DrawFn, depth: int = 0) -> str:
    """JSON text of an object, keys perhaps repeated, spaced and escaped as JSON allows."""
    members = []
    for _ in range(draw(st.integers(0, 3))):
        key = json.dumps(draw(keys), ensure_ascii=draw(st.booleans()))
        space = draw(st.sampled_from(["", "", " ", "\t", "\n"]))
        kind = draw(st.integers(0, 3))
        if kind == 0 and depth < 2:
            value = draw(documents(depth + 1))
        elif kind == 1:
            value = json.dumps(draw(keys))
        elif kind == 2:
            value = f"[{draw(documents(depth + 1))}]" if depth < 2 else "[]"
        else:
            value = "1"
        members.append(f"{key}{space}:{draw(st.sampled_from(['', ' ']))}{value}")
    return "{" + ",".join(members) + "}"


def count(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(count, value.values()))
    return sum(map(count, value)) if isinstance(value, list) else 0


@given(text=documents())
@settings(max_examples=1000, deadline=None)
def test_the_cheap_look_for_repeated_keys_never_misses_one(text: str) -> None:
    raw = text.encode()
    try:
        refuse_repeats(raw)
    except RepeatedKeyError:
        assert maybe_repeats(raw, count(json.loads(raw)))


def test_the_cheap_look_suffices_for_an_ordinary_event() -> None:
    raw = json.dumps({**EVENT, "tool_args": '{"day":"2024-05-15"}', "attributes": {"a": "b: c"}}).encode()
    assert not maybe_repeats(raw, count(json.loads(raw)))


def test_a_mapped_event_is_held_to_the_same_rules(gate: Gate) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    base = {"event_type": "tool.executed", "agent_id": "a", "timestamp": moment}
    assert gate.check({**base, "identity": "provisional"}, SENDER).identity == "provisional"
    for bad in ({"cost_usd": float("nan")}, {"timestamp": datetime(2026, 1, 1)}, {"tool_name": "ü" * 17}):
        with pytest.raises(Rejected, match=next(iter(bad))):
            gate.check({**base, **bad}, SENDER)


def test_a_fault_of_the_source_is_passed_on(gate: Gate) -> None:
    fault = Rejected("torn", b"x")
    with pytest.raises(Rejected) as raised:
        gate.check(fault, SENDER)
    assert raised.value is fault


def test_a_batch_holds_every_value_and_every_absence_in_order() -> None:
    records = [
        event("tool.executed", 1, cost_usd=0.5, input_tokens=3, data_accessed=["t"], attributes={"a": "b"}),
        event("task.completed", 2, approval_expires_at=START),
        event("tool.requested", 3, attributes={}, data_accessed=[]),
    ]
    batch = arrow_batch(records)
    batch.validate(full=True)
    assert batch.schema == ARROW_SCHEMA == arrow_batch([]).schema
    for record, row in zip(records, batch.to_pylist(maps_as_pydicts="strict"), strict=True):
        for column in COLUMNS:
            empty = {Kind.MAP: {}, Kind.LIST: []}.get(column.kind)
            assert row[column.name] == (getattr(record, column.name) or empty)
