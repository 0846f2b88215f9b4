"""What a producer may send, and what becomes of it on its way to the spool."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import zstandard

from monitor.sources.spool import segments
from tests.daemons import until

EVENT = {"event_type": "tool.executed", "agent_id": "a", "timestamp": "2026-01-05T09:30:00Z"}


def body(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    return [{**EVENT, "event_id": f"e{n}", **more} for n in numbers]


SHAPES = {
    "object": (json.dumps(body(1)[0]).encode(), 1),
    "pretty object": (json.dumps(body(1)[0], indent=2).encode(), 1),
    "array": (json.dumps(body(1, 2), indent=1).encode(), 2),
    "lines": (b"\n".join(json.dumps(e).encode() for e in body(1, 2, 3)), 3),
    "lines with blanks": (b"\r\n\r\n".join(json.dumps(e).encode() for e in body(1, 2, 3)) + b"\n", 3),
    "empty array": (b"[]", 0),
}


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_is_taken_in_each_coding(edge: Any, shape: str, coding: str) -> None:
    plain, count = SHAPES[shape]
    packed = {"identity": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}[coding](plain)
    reply = edge.post(packed, content_encoding=coding)
    assert reply.json() == {"accepted": count, "duplicates": 0, "rejected": []}
    assert [event["event_id"] for event in edge.stored()] == [f"e{n}" for n in range(1, count + 1)]


def test_chunks_and_several_gzip_members_are_one_body(edge: Any) -> None:
    packed = b"".join(gzip.compress(json.dumps(e).encode() + b"\n") for e in body(1, 2))
    reply = edge.post(iter([packed[:20], packed[20:]]), content_encoding="gzip")
    assert reply.json()["accepted"] == 2


def test_what_no_column_takes_becomes_an_attribute(edge: Any) -> None:
    event = body(
        1, currency="EUR", nested={"a": [1, None]}, attributes={"n": 1, "ok": True, "deep": {"x": "y"}}
    )
    edge.post(json.dumps(event))
    (kept,) = edge.stored()
    assert kept["attributes"] == {
        "n": "1",
        "ok": "true",
        "deep": '{"x":"y"}',
        "currency": "EUR",
        "nested": '{"a":[1,null]}',
        "watchkeeper.clock": "ancient",
    }


def test_a_producer_cannot_set_our_marks_or_our_columns(edge: Any) -> None:
    edge.post(
        json.dumps(
            body(
                1,
                identity="bound",
                ingested_at="2020-01-01T00:00:00Z",
                attributes={"watchkeeper.replay": "true", "producer.watchkeeper.replay": "x"},
            )
        )
    )
    (kept,) = edge.stored()
    assert kept["identity"] == "declared"
    assert kept["tenant"] == "default"
    assert datetime.now(UTC) - kept["ingested_at"] < timedelta(minutes=1)
    assert "watchkeeper.replay" not in kept["attributes"]
    assert {"true", "x"} <= set(kept["attributes"].values())
    assert kept["attributes"]["producer.identity"] == "bound"


def test_a_producer_cannot_shield_itself_as_provisional(edge: Any) -> None:
    edge.post(json.dumps(body(1, identity="provisional")))
    assert edge.stored()[0]["identity"] == "declared"


def test_a_key_tied_to_agents_speaks_for_them_and_no_other(edge: Any) -> None:
    _, bound = edge.keys.create("bound", tenant="acme", agents=["a"])
    answer = edge.post(json.dumps(body(1) + body(2, agent_id="b")), key=bound).json()
    assert answer["accepted"] == 1
    assert "agent_id" in answer["rejected"][0]["reason"]
    (kept,) = edge.stored()
    assert (kept["identity"], kept["tenant"]) == ("bound", "acme")


def test_a_long_text_is_cut_and_marked(start_edge: Any) -> None:
    edge = start_edge(max_text_bytes=100)
    edge.post(
        json.dumps(body(1, tool_args="ü" * 80, attributes={"note": "x" * 101}), ensure_ascii=False).encode()
    )
    (kept,) = edge.stored()
    assert kept["tool_args"] == "ü" * 50
    assert kept["attributes"]["watchkeeper.cut.tool_args"] == "160"
    assert kept["attributes"]["watchkeeper.cut.attributes.note"] == "101"
    assert len(kept["attributes"]["note"]) == 100


def test_a_clock_far_ahead_is_kept_and_marked(edge: Any) -> None:
    ahead = (datetime.now(UTC) + timedelta(minutes=6)).isoformat()
    edge.post(json.dumps([*body(1, timestamp=ahead), *body(2, timestamp=datetime.now(UTC).isoformat())]))
    first, second = edge.stored()
    assert first["attributes"] == {"watchkeeper.clock": "future"}
    assert "attributes" not in second


def test_an_event_older_than_the_lateness_is_kept_and_marked_unless_it_is_replayed(edge: Any) -> None:
    _, key = edge.keys.create("replayer", scopes=["ingest", "replay"])
    old, late = ((datetime.now(UTC) - timedelta(minutes=minutes)).isoformat() for minutes in (11, 9))
    edge.post(json.dumps([*body(1, timestamp=old), *body(2, timestamp=late)]))
    edge.post(json.dumps(body(3, timestamp=old)), key=key, watchkeeper_replay="true")
    first, second, replayed = edge.stored()
    assert first["attributes"] == {"watchkeeper.clock": "ancient"}
    assert "attributes" not in second
    assert replayed["attributes"] == {"watchkeeper.replay": "true"}


def test_an_offset_is_turned_into_utc(edge: Any) -> None:
    edge.post(json.dumps(body(1, timestamp="2026-01-05T11:30:00.123456+02:00")))
    assert edge.stored()[0]["timestamp"] == datetime(2026, 1, 5, 9, 30, 0, 123456, UTC)


def test_an_event_without_an_id_gets_the_same_one_each_time(edge: Any) -> None:
    bare = json.dumps(EVENT)
    swapped = json.dumps(dict(reversed(EVENT.items())))
    assert edge.post(bare).json()["duplicates"] == 0
    assert edge.post(swapped).json()["duplicates"] == 1
    (kept,) = edge.stored()
    assert kept["event_id"].startswith("evt_")


def test_a_repeat_is_dropped_and_counted_even_after_a_restart(start_edge: Any) -> None:
    edge = start_edge()
    assert edge.post(json.dumps(body(1, 2))).json()["duplicates"] == 0
    assert edge.post(json.dumps(body(2, 3, 3))).json() == {"accepted": 3, "duplicates": 2, "rejected": []}
    edge.stop()
    again = start_edge()
    assert again.post(json.dumps(body(1, 2, 3, 4)), key=again.key).json()["duplicates"] == 3
    assert [event["event_id"] for event in again.stored()] == ["e1", "e2", "e3", "e4"]


def test_the_same_id_with_other_content_is_kept_as_evidence_once(edge: Any) -> None:
    edge.post(json.dumps(body(1, tool_name="read")))
    for _ in range(2):
        edge.post(json.dumps(body(1, tool_name="erase")))
    first, conflict = edge.stored()
    assert conflict["event_id"].startswith("e1#conflict-")
    assert conflict["attributes"]["watchkeeper.conflict"] == "e1"
    assert (first["tool_name"], conflict["tool_name"]) == ("read", "erase")


def test_ids_are_compared_across_keys_of_a_tenant_and_restarts_but_not_across_tenants(
    start_edge: Any,
) -> None:
    edge = start_edge()
    _, second = edge.keys.create("second")
    _, foreign = edge.keys.create("foreign", tenant="other")
    edge.post(json.dumps(body(1, tool_name="read")))
    edge.post(json.dumps(body(1, tool_name="erase")), key=second)
    edge.post(json.dumps(body(1, tool_name="pay")), key=foreign)
    edge.stop()
    again = start_edge()
    assert again.post(json.dumps(body(1, tool_name="erase")), key=again.key).json()["duplicates"] == 1
    again.post(json.dumps(body(1, tool_name="send")), key=again.key)
    kept = again.stored()
    assert [one["tool_name"] for one in kept] == ["read", "erase", "pay", "send"]
    marks = [one["attributes"].get("watchkeeper.conflict") for one in kept]
    assert marks == [None, "e1", None, "e1"]
    assert len({(one["tenant"], one["event_id"]) for one in kept}) == 4


def test_a_replay_that_contradicts_what_happened_live_is_a_conflict_and_not_the_other_way(edge: Any) -> None:
    _, key = edge.keys.create("replayer", scopes=["ingest", "replay"])
    edge.post(json.dumps(body(1, tool_name="read")))
    edge.post(json.dumps(body(1, 2, tool_name="erase")), key=key, watchkeeper_replay="true")
    edge.post(json.dumps(body(2, tool_name="read")))
    kept = {one["event_id"]: one["attributes"] for one in edge.stored()}
    conflict = next(marks for name, marks in kept.items() if name.startswith("e1#conflict-"))
    assert (conflict["watchkeeper.conflict"], conflict["watchkeeper.replay"]) == ("e1", "true")
    assert len(kept) == 3


def test_a_live_event_that_is_replayed_is_a_repeat_and_a_new_one_is_marked(edge: Any) -> None:
    _, key = edge.keys.create("replayer", scopes=["ingest", "replay"])
    edge.post(json.dumps(body(1)))
    answer = edge.post(json.dumps(body(1, 2)), key=key, watchkeeper_replay="true").json()
    assert answer["duplicates"] == 1
    assert edge.stored()[1]["attributes"] == {"watchkeeper.replay": "true"}
    assert edge.post(json.dumps(body(2))).json()["duplicates"] == 0


def test_without_a_key_only_loopback_may_send_and_no_web_page(start_edge: Any) -> None:
    edge = start_edge(keyless_loopback=True)
    send = json.dumps(body(1))
    assert edge.client.post("/v1/events", content=send).json()["accepted"] == 1
    assert (
        edge.client.post("/v1/events", content=send, headers={"Origin": "https://evil.example"}).status_code
        == 401
    )
    assert (
        edge.client.post("/v1/events", content=send, headers={"Authorization": "Bearer wk_x"}).status_code
        == 401
    )


def test_a_revoked_key_is_refused_within_seconds(edge: Any) -> None:
    key_id, key = edge.keys.create("short-lived")
    assert edge.post(json.dumps(body(1)), key=key).status_code == 200
    assert edge.keys.revoke(key_id)
    until(lambda: edge.post(json.dumps(body(1)), key=key).status_code == 401, "the key is refused", 5)
    assert not edge.keys.revoke(key_id)


def test_a_full_spool_tells_senders_to_wait_and_stays_alive(start_edge: Any) -> None:
    edge = start_edge(spool={"max_bytes": 3, "seal_bytes": 1})
    reply = edge.post(json.dumps(body(1)))
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) > 0
    assert "spool" in reply.json()["detail"]
    ready = edge.client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert edge.client.get("/healthz").status_code == 200
    assert edge.stored() == []


def test_more_events_than_may_wait_are_answered_429(start_edge: Any) -> None:
    edge = start_edge(max_waiting_events=3)
    assert edge.post(json.dumps(body(1, 2, 3))).status_code == 200
    assert edge.committer.admission.events.take("another", 1)  # a slow disk would hold one
    reply = edge.post(json.dumps(body(4, 5, 6)))
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")


def test_a_segment_with_events_is_sealed_when_it_is_old_enough(edge: Any) -> None:
    edge.post(json.dumps(body(1)))
    until(lambda: len(segments(edge.settings.spool_folder)) == 2, "the segment is sealed", 5)
    edge.client.get("/healthz")
    assert len(segments(edge.settings.spool_folder)) == 2
