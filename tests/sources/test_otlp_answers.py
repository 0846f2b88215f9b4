"""What an exporter hears: nothing it would stop at for want of data, and nothing it cannot read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from monitor.sources.otlp_answers import told
from tests.sources.spans import request, span, tool

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
def test_a_request_without_data_is_accepted(edge: Any, path: str) -> None:
    name = {"/v1/traces": "resourceSpans", "/v1/logs": "resourceLogs"}[path]
    bodies: tuple[dict[str, Any], ...] = ({}, {name: []}, {name: None}, {name: [{}]})
    for body in bodies:
        reply = edge.post(json.dumps(body).encode(), path, Content_Type=JSON)
        assert (reply.status_code, reply.json()) == (200, {})
    reply = edge.post(b"", path, Content_Type=PROTOBUF)
    assert (reply.status_code, reply.content) == (200, b"")
    assert edge.dead.count() == 0


def test_a_cut_emoji_is_replaced_and_its_batch_kept(edge: Any) -> None:
    text = r"whole \ud83d\ude00, cut \ud83d, low \ude00, twice \ud83d\ud83d\ude00, said \\ud83d"
    body = request(tool(1, note="here"), tool(2)).replace(b"here", text.encode())
    reply = edge.post(body, "/v1/traces", Content_Type=JSON)
    assert (reply.status_code, reply.json()) == (200, {})
    assert len(edge.stored()) == 4
    (note,) = {
        event["attributes"]["note"] for event in edge.stored() if "note" in event.get("attributes", {})
    }
    assert note == "whole 😀, cut \ufffd, low \ufffd, twice \ufffd😀, said \\ud83d"


def test_a_key_that_stands_twice_in_a_span_is_that_spans_fault_and_its_letter_says_both(edge: Any) -> None:
    body = request(tool(1, note="here"), tool(2)).replace(
        b'{"stringValue": "here"}', b'{"stringValue": "one", "stringValue": "two"}'
    )
    reply = edge.post(body, "/v1/traces", Content_Type=JSON)
    assert reply.status_code == 200
    assert reply.json()["partialSuccess"]["rejectedSpans"] == "1"
    assert "stands twice" in reply.json()["partialSuccess"]["errorMessage"]
    assert len(edge.stored()) == 2
    (letter,) = edge.letters(1)
    assert b'"stringValue":"one","stringValue":"two"' in (letter.bytes() or b"")
    again = edge.post(letter.bytes(), "/v1/traces", Content_Type=JSON)
    assert again.json()["partialSuccess"]["rejectedSpans"] == "1"


def test_a_key_that_stands_twice_in_a_resource_is_a_fault_of_its_records(edge: Any) -> None:
    good, bad = (json.loads(request(span(n)))["resourceSpans"][0] for n in (1, 2))
    body = json.dumps({"resourceSpans": [good, bad]}).encode()
    head, _, tail = body.rpartition(b'"key": "service.name"')
    reply = edge.post(head + b'"key": "a", "key": "b"' + tail, "/v1/traces", Content_Type=JSON)
    assert reply.json()["partialSuccess"]["rejectedSpans"] == "1"


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs", "/v1/metrics", "/v1/profiles"])
def test_a_wrong_method_or_path_is_a_status_in_the_exporters_encoding(edge: Any, path: str) -> None:
    method = "POST" if path == "/v1/profiles" else "PUT"
    reply = edge.client.request(method, path, content=b"", headers={"Content-Type": PROTOBUF})
    assert reply.status_code == (404 if path == "/v1/profiles" else 405)
    assert reply.headers["content-type"] == PROTOBUF
    assert "POST to" in told(reply.content)
    if path != "/v1/profiles":
        reply = edge.client.put(path, content=b"", headers={"Content-Type": JSON})
        assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
        assert "POST to" in reply.json()["message"]


@pytest.mark.parametrize("way", ["/v1/events", "/v1/traces"])
def test_a_commit_that_fails_within_is_answered_so_that_the_sender_comes_again(
    edge: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def broken(entries: Any) -> None:
        raise RuntimeError("not a fault of the disk")

    event = {"event_type": "tool.executed", "agent_id": "a", "timestamp": "2026-01-05T09:30:00Z"}
    body = json.dumps(event).encode() if way == "/v1/events" else request(tool(1))
    monkeypatch.setattr(edge.writer, "append", broken)
    reply = edge.post(body, way, Content_Type=JSON)
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) > 0
    assert "again" in reply.json()["message" if way == "/v1/traces" else "detail"]
    monkeypatch.undo()
    assert edge.post(body, way, Content_Type=JSON).status_code == 200
    assert edge.stored()
