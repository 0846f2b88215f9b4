"""Slow, greedy and vanished clients, on raw sockets: each is cut off at a set limit, the rest go on."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.daemons import until
from tests.sources.live import LiveEdge

EVENT = json.dumps({"event_type": "tool.executed", "agent_id": "a", "timestamp": "2026-01-05T09:30:00Z"})


def head(edge: LiveEdge, **fields: str) -> bytes:
    """The head of a POST of events."""
    lines = ["POST /v1/events HTTP/1.1", "Host: edge", f"Authorization: Bearer {edge.key}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode()


class Client:
    """A raw connection."""

    def __init__(self, edge: LiveEdge, source: str = "127.0.0.1") -> None:
        place = urlsplit(edge.url)
        self.socket = socket.create_connection(
            (place.hostname, place.port), timeout=10, source_address=(source, 0)
        )
        self.got = b""
        self.closed = False

    def send(self, data: bytes) -> None:
        """Send, whether or not the server still listens."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def look(self) -> bool:
        """Take in what came; whether the server has closed."""
        self.socket.settimeout(0.01)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        self.got += data
        self.closed = not data
        return self.closed

    def status(self) -> int:
        """Of the first answer."""
        return int(self.got.split(b" ", 2)[1]) if self.got else 0


@pytest.fixture
def quick(start_edge: Any) -> LiveEdge:
    edge: LiveEdge = start_edge(head_seconds=0.4, body_seconds=0.4, min_body_rate=1000, idle_seconds=1)
    return edge


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    opened: list[Client] = []
    yield opened
    for client in opened:
        client.socket.close()


def drip(client: Client, piece: bytes, what: str) -> None:
    """Send a piece every 20 ms until the server closes."""

    def closed() -> bool:
        client.send(piece)
        return client.look()

    until(closed, what, 10)


def test_a_head_that_drips_is_answered_408(quick: LiveEdge, clients: list[Client]) -> None:
    clients.append(client := Client(quick))
    client.send(b"POST /v1/events HTTP/1.1\r\nX-Slow: ")
    drip(client, b"x", "the dripping head is cut off")
    assert client.status() == 408
    assert b"application/problem+json" in client.got


def test_blank_lines_do_not_keep_a_connection_open(quick: LiveEdge, clients: list[Client]) -> None:
    clients.append(client := Client(quick))
    drip(client, b"\r\n", "a connection that only sends blank lines is cut off")


def test_a_connection_that_says_nothing_is_closed_without_a_word(
    quick: LiveEdge, clients: list[Client]
) -> None:
    clients.append(client := Client(quick))
    until(client.look, "a silent connection is closed", 5)
    assert client.got == b""


def test_a_body_that_drips_is_answered_408_and_gives_its_room_back(
    quick: LiveEdge, clients: list[Client]
) -> None:
    clients.append(client := Client(quick))
    client.send(head(quick, Content_Length="100000"))
    until(lambda: quick.committer.admission.bytes.used == 100_000, "the declared length is held", 5)
    drip(client, b"x", "the dripping body is cut off")
    assert client.status() == 408
    until(lambda: quick.committer.admission.bytes.used == 0, "its room is free again", 5)


def test_a_body_that_stops_half_way_is_answered_408(quick: LiveEdge, clients: list[Client]) -> None:
    """A half-open socket: the peer is gone, and no FIN ever comes."""
    clients.append(client := Client(quick))
    client.send(head(quick, Content_Length="1000") + b"{")
    until(client.look, "the half-open connection is closed", 5)
    assert client.status() == 408


def test_chunk_extensions_and_trailers_do_not_put_the_deadline_off(
    quick: LiveEdge, clients: list[Client]
) -> None:
    for beginning in (b"1;", b"1\r\n{\r\n0\r\nTrailer: "):
        clients.append(client := Client(quick))
        client.send(head(quick, Transfer_Encoding="chunked") + beginning)
        drip(client, b"x", "endless chunk framing is cut off")


def test_a_steady_body_may_take_longer_than_the_deadline(quick: LiveEdge, clients: list[Client]) -> None:
    clients.append(client := Client(quick))
    body = EVENT.encode().ljust(5000)
    client.send(head(quick, Content_Length=str(len(body)), Connection="close"))
    began = time.monotonic()
    sent = 0

    def all_sent() -> bool:
        """At five times the least rate, by the clock: a slow machine sends larger pieces, not fewer bytes."""
        nonlocal sent
        due = int((time.monotonic() - began) * 5000)
        client.send(body[sent:due])
        sent = max(sent, due)
        return sent >= len(body)

    until(all_sent, "the body is sent", 10)
    assert time.monotonic() - began > 0.8
    until(client.look, "the answer", 5)
    assert client.status() == 200


def test_a_huge_head_is_answered_431(quick: LiveEdge, clients: list[Client]) -> None:
    for piece in (b"X: y\r\n" * 1000, b"x" * 6000):
        clients.append(client := Client(quick))
        client.send(b"POST /v1/events HTTP/1.1\r\nX: ")
        drip(client, piece, "the huge head is cut off")
        assert client.status() == 431


def test_an_idle_connection_is_closed(quick: LiveEdge, clients: list[Client]) -> None:
    clients.append(client := Client(quick))
    client.send(head(quick, Content_Length=str(len(EVENT))) + EVENT.encode())
    until(client.look, "the idle connection is closed", 10)
    assert client.status() == 200
    assert client.got.count(b"HTTP/1.1") == 1


def test_pipelined_requests_are_all_answered(quick: LiveEdge, clients: list[Client]) -> None:
    clients.append(client := Client(quick))
    client.send((head(quick, Content_Length=str(len(EVENT))) + EVENT.encode()) * 5)
    until(lambda: client.look() or client.got.count(b" 200 ") == 5, "five answers", 10)
    assert client.got.count(b" 200 ") == 5


def test_connections_are_bounded_for_an_address_and_in_all(start_edge: Any, clients: list[Client]) -> None:
    edge = start_edge(max_connections=6, max_connections_per_address=4)
    metrics = edge._server.guard.metrics

    def hold(source: str, count: int) -> None:
        for _ in range(count):
            clients.append(client := Client(edge, source))
            client.send(head(edge)[:-2])

    hold("127.0.0.1", 4)
    until(lambda: metrics()["connections"] == 4, "four are open", 5)
    clients.append(fifth := Client(edge))
    until(fifth.look, "the fifth of one address is turned away", 5)
    assert fifth.status() == 503
    assert b"retry-after: 1" in fifth.got.lower()
    hold("127.0.0.2", 2)
    until(lambda: metrics()["connections"] == 6, "six are open", 5)
    clients.append(seventh := Client(edge, "127.0.0.2"))
    until(seventh.look, "there is a limit for all addresses together", 5)
    assert seventh.status() == 503
    assert metrics()["connections_refused_total"] == 2
    clients[0].socket.close()
    until(lambda: metrics()["connections"] == 5, "one is closed", 5)
    assert edge.client.get("/healthz").status_code == 200


def test_a_client_that_never_reads_its_answers_is_cut_off(
    quick: LiveEdge, clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.processes.connections.UNREAD_SECONDS", 0.5)
    clients.append(client := Client(quick))
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lines = b"x\n" * 10_000
    asked = head(quick, Content_Length=str(len(lines)), Content_Type="application/x-ndjson") + lines
    client.socket.settimeout(0.05)

    def gone() -> bool:
        with contextlib.suppress(TimeoutError):
            try:
                client.socket.send(asked)
            except OSError:
                return True
        return False

    until(gone, "a client that does not read is cut off", 30)
