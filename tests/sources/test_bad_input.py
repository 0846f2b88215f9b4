"""Issue 2, "Bad input": answered with index and reason, kept as dead letters, neighbours kept."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import zstandard

GOOD = {"event_type": "tool.executed", "agent_id": "a", "timestamp": "2026-01-05T09:30:00Z"}


def good(number: int, **more: Any) -> bytes:
    return json.dumps({**GOOD, "event_id": f"g{number}", **more}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


BAD_RECORDS = {
    "malformed": (b'{"event_type": "tool.exec', "not valid JSON"),
    "no object": (b"[1]", "JSON object"),
    "bare word": (b"hello", "not valid JSON"),
    "two in a line": (good(1) + good(2), "one object a line"),
    "wrong type": (good(1, input_tokens="12"), "input_tokens"),
    "wrong type in a list": (good(1, data_accessed=["a", 1]), "data_accessed"),
    "fraction for an integer": (good(1, input_tokens=1.5), "input_tokens"),
    "integer beyond 64 bits": (good(1, input_tokens=2**63), "input_tokens"),
    "number beyond a float": (good(1)[:-1] + b', "cost_usd": 1e999}', "cost_usd"),
    "NaN": (good(1)[:-1] + b', "cost_usd": NaN}', "NaN"),
    "Infinity": (good(1)[:-1] + b', "cost_usd": -Infinity}', "Infinity"),
    "repeated key": (good(1)[:-1] + b',"agent_id":"b"}', "agent_id"),
    "repeated key, spaced": (good(1)[:-1] + b', "agent_id" : "b"}', "agent_id"),
    "repeated key, escaped": (good(1)[:-1] + b',"agent\\u005fid":"b"}', "agent_id"),
    "repeated key, deep": (good(1)[:-1] + b',"attributes":{"x":{"y":[{"k":1,"k":2}]}}}', "'k'"),
    "repeated unknown key": (good(1)[:-1] + b',"zz":1,"zz":2}', "zz"),
    "repeated null": (good(1)[:-1] + b',"tool_name":"rm","tool_name":null}', "tool_name"),
    "repeated attributes": (good(1)[:-1] + b',"attributes":{"a":"1"},"attributes":{}}', "attributes"),
    "key at two levels": (good(1, zz=1, attributes={"zz": "2"}), "zz"),
    "unknown event type": (good(1, event_type="tool.exploded"), "event_type"),
    "unknown enum value": (good(1, outcome="fine"), "outcome"),
    "no event type": (without("event_type"), "event_type"),
    "no agent": (without("agent_id"), "agent_id"),
    "no timestamp": (without("timestamp"), "timestamp"),
    "empty agent": (good(1, agent_id=""), "agent_id"),
    "naive timestamp": (good(1, timestamp="2026-01-05T09:30:00"), "timestamp"),
    "number as timestamp": (good(1, timestamp=1767605400), "timestamp"),
    "timestamp out of range": (good(1, timestamp="0001-01-01T00:00:00Z"), "timestamp"),
    "invalid UTF-8": (good(1)[:-1] + b',"tool_name":"\xff"}', "UTF-8"),
    "lone surrogate": (good(1)[:-1] + b',"tool_name":"\\ud800"}', "not valid JSON"),
    "name too long": (good(1, tool_name="x" * 600), "tool_name"),
    "name too long in bytes": (good(1, tool_name="ü" * 300), "tool_name"),
    "attribute name too long": (good(1, attributes={"x" * 600: "1"}), "attributes"),
    "too many attributes": (good(1, attributes={str(n): "1" for n in range(300)}), "attributes"),
    "nested too deeply": (good(1)[:-1] + b',"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "deeply"),
    "of too many values": (good(1)[:-1] + b',"x":[' + b"[]," * 30_000 + b"0]}", "20000 values"),
    "another tenant": (good(1, tenant="other"), "tenant"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_bad_line_is_refused_by_itself(edge: Any, name: str) -> None:
    bad, named = BAD_RECORDS[name]
    reply = edge.post(b"\n".join([good(10), bad, good(11)]), content_type="application/x-ndjson")
    assert reply.status_code == 200
    answer = reply.json()
    assert answer["accepted"] == 2
    assert [fault["index"] for fault in answer["rejected"]] == [1]
    assert named in answer["rejected"][0]["reason"]
    assert len(answer["rejected"][0]["reason"]) < 400
    assert [event["event_id"] for event in edge.stored()] == ["g10", "g11"]
    letter = edge.letters(1)[0]
    assert (letter.index, letter.reason, letter.key_id) == (1, answer["rejected"][0]["reason"], edge.key_id)
    assert letter.size == len(bad)


@pytest.mark.parametrize("name", ["wrong type", "repeated key", "malformed", "unknown event type"])
def test_a_bad_element_of_an_array_is_refused_by_itself(edge: Any, name: str) -> None:
    bad = BAD_RECORDS[name][0]
    reply = edge.post(
        b"[" + b",".join([good(10), bad if name != "malformed" else b'{"a": tru, "b": [,]}', good(11)]) + b"]"
    )
    assert reply.json()["accepted"] == 2
    assert [fault["index"] for fault in reply.json()["rejected"]] == [1]


def test_a_batch_with_nothing_good_is_a_problem_with_every_reason(edge: Any) -> None:
    reply = edge.post(b"\n".join([b"x", without("agent_id")]), content_type="application/x-ndjson")
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert {"type", "title", "status", "detail"} <= problem.keys()
    assert [fault["index"] for fault in problem["rejected"]] == [0, 1]
    assert edge.dead.count() == 2
    assert edge.stored() == []


def test_reasons_echo_no_more_than_a_short_escaped_piece(edge: Any) -> None:
    hostile = "\x1b[31m" + "<script>" * 200
    reply = edge.post(json.dumps({**GOOD, "zz" + hostile: 1, "attributes": {"zz" + hostile: 1}}))
    reason = reply.json()["rejected"][0]["reason"]
    assert "\x1b" not in reason
    assert len(reason) < 150


def bomb(compress: Any) -> bytes:
    return compress(b"[" + b" " * (64 << 20) + b"]")


BAD_BODIES = {
    "truncated gzip": (gzip.compress(good(1) * 50)[:-12], {"content_encoding": "gzip"}, 400),
    "no gzip at all": (b"plain", {"content_encoding": "gzip"}, 400),
    "rubbish behind gzip": (gzip.compress(good(1)) + b"rubbish", {"content_encoding": "gzip"}, 400),
    "truncated zstd": (zstandard.compress(good(1) * 50)[:-5], {"content_encoding": "zstd"}, 400),
    "gzip bomb": (bomb(gzip.compress), {"content_encoding": "gzip"}, 413),
    "zstd bomb": (bomb(zstandard.compress), {"content_encoding": "zstd"}, 413),
    "unknown coding": (b"x", {"content_encoding": "br"}, 415),
    "empty": (b"", {}, 400),
    "blank": (b" \n ", {}, 400),
    "over the limit": (b" " * ((16 << 20) + 1), {}, 413),
    "more records than can wait": (b"1\n" * 50_001, {"content_type": "application/x-ndjson"}, 413),
    "an array of tiny scalars": (b"[" + b"1," * 8_000_000 + b"1]", {}, 400),
    "an array of tiny objects": (b"[" + b"{}," * 5_000_000 + b"{}]", {}, 413),
    "an array of empty strings": (b"[" + b'"",' * 5_000_000 + b'""]', {}, 400),
    "many small members": (gzip.compress(b"") * 20_000, {"content_encoding": "gzip"}, 413),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_a_problem_and_a_dead_letter(edge: Any, name: str) -> None:
    body, headers, status = BAD_BODIES[name]
    reply = edge.post(body, **headers)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["status"] == status
    assert edge.letters(1)[0].reason == reply.json()["detail"]
    assert edge.post(good(1)).json()["accepted"] == 1


def test_a_chunked_body_over_the_limit_is_cut_off_while_it_comes(start_edge: Any) -> None:
    edge = start_edge(max_body_bytes=100_000)
    endless = (b"x" * 65536 for _ in range(1000))
    # The server may close before the client has sent everything.
    with contextlib.suppress(httpx.TransportError):
        assert edge.post(endless).status_code == 413
    assert "larger than" in edge.letters(1)[0].reason


@pytest.mark.parametrize("kind", ["application/x-protobuf", "application/json"])
def test_garbage_as_a_trace_is_told_in_the_senders_encoding_and_a_dead_letter(edge: Any, kind: str) -> None:
    reply = edge.post(b"\x0agarbage", path="/v1/traces", content_type=kind)
    assert reply.status_code == 400
    assert reply.headers["content-type"] == kind
    assert edge.dead.count() == 1


def test_a_missing_or_wrong_key_is_answered_401_and_nothing_is_kept(edge: Any) -> None:
    for headers in ({}, {"Authorization": "Bearer wk_wrong"}, {"Authorization": f"Basic {edge.key}"}):
        reply = edge.client.post("/v1/events", content=good(1), headers=headers)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"].startswith("Bearer")
        assert reply.headers["content-type"] == "application/problem+json"
    assert edge.dead.count() == 0


def test_a_key_without_the_scope_is_answered_403_and_counted_but_leaves_no_dead_letter(edge: Any) -> None:
    _, reading = edge.keys.create("reader", scopes=["read"])
    assert edge.post(good(1), key=reading).status_code == 403
    reply = edge.post(good(1), watchkeeper_replay="true")
    assert reply.status_code == 403
    assert "scope replay" in reply.json()["rejected"][0]["reason"]
    assert edge.dead.count() == 0
    assert edge.committer.counters.rejected == 2


def test_another_path_or_method_is_a_problem_too(edge: Any) -> None:
    for reply, status in ((edge.client.get("/v1/nothing"), 404), (edge.client.get("/v1/events"), 405)):
        assert reply.status_code == status
        assert reply.headers["content-type"] == "application/problem+json"


def test_a_client_that_hangs_up_harms_nobody(edge: Any) -> None:
    place = urlsplit(edge.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    connection.putrequest("POST", "/v1/events")
    connection.putheader("Authorization", f"Bearer {edge.key}")
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    connection.send(b"{")
    connection.close()
    assert edge.post(good(1)).json()["accepted"] == 1
