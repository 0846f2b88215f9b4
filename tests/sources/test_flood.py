"""What a sender is told when there is no room for more, and that it is told early."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemons import until
from tests.sources.live import LiveEdge
from tests.sources.test_slow_clients import EVENT, Client, head


@pytest.fixture
def crowded(start_edge: Any) -> LiveEdge:
    """An edge whose room for bodies another key has taken, all but 1000 bytes."""
    edge: LiveEdge = start_edge(max_body_bytes=20_000, max_waiting_bytes=60_000)
    assert edge.committer.admission.bytes.take("another", 59_000)
    return edge


@pytest.fixture
def client(crowded: LiveEdge) -> Iterator[Client]:
    opened = Client(crowded)
    yield opened
    opened.socket.close()


def test_without_room_the_answer_comes_before_the_body(crowded: LiveEdge, client: Client) -> None:
    client.send(head(crowded, Content_Length="20000", Expect="100-continue"))
    until(lambda: client.look() or client.got, "an answer", 5)
    assert client.status() == 429
    assert b"retry-after: 1" in client.got.lower()
    assert b"100 Continue" not in client.got


def test_the_connection_goes_on_after_the_refused_body(crowded: LiveEdge, client: Client) -> None:
    client.send(head(crowded, Content_Length="20000"))
    until(lambda: client.look() or client.got, "an answer", 5)
    client.send(b" " * 20_000 + head(crowded, Content_Length=str(len(EVENT))) + EVENT.encode())
    until(lambda: client.look() or b'"accepted":1' in client.got, "the next request's answer", 5)
    assert not client.closed
    assert b" 200 OK" in client.got


def test_a_body_that_grows_too_large_while_it_comes_or_is_unpacked_is_told_to_wait(crowded: LiveEdge) -> None:
    body = json.dumps({**json.loads(EVENT), "tool_args": "x" * 15_000}).encode()
    packed = gzip.compress(body)
    assert len(packed) < 500
    assert crowded.post(packed, content_encoding="gzip").status_code == 429
    assert crowded.post(iter([body[:900], body[900:]])).status_code == 429
    assert crowded.committer.admission.bytes.held() == {"another": 59_000}
    assert crowded.stored() == []
    crowded.committer.admission.bytes.give_back("another", 59_000)
    assert crowded.post(packed, content_encoding="gzip").status_code == 200
    assert crowded.committer.admission.pressure()["by_key"][crowded.key_id]["throttled_total"] == 2


def test_a_full_room_keeps_nobody_from_asking_how_the_edge_is(crowded: LiveEdge) -> None:
    assert crowded.client.get("/healthz").status_code == 200
    assert crowded.client.get("/readyz").status_code == 200
