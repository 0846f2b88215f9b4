"""Senders that repeat, with the same bytes, whatever was not answered; and that lose answers on purpose."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.chaos.stories import batches

LOSES_ANSWER = 0.1
REPEATS_ANSWERED = 0.05
PAUSE_SECONDS = 0.05
LONGEST_REST = 0.4
"""Judging costs tens of milliseconds a commit; what is proven here is order, not speed."""


@dataclass
class Sent:
    """What a sender knows: the ids of all it sent, and of what was answered."""

    tried: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    repeats: int = 0
    cut: int = 0
    faults: list[str] = field(default_factory=list)


class Sender(threading.Thread):
    """One client in a closed loop: sends, waits for the answer, repeats until it has one."""

    def __init__(self, name: str, seed: int, port: int, key: str, ending: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.sent = Sent()
        self._rng = Random(f"{seed}-{name}")
        self._port = port
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"}
        self._ending = ending

    def run(self) -> None:
        for lines in batches(self.name, self._rng, lambda: not self._ending.is_set()):
            body, ids = b"\n".join(lines), {json.loads(line)["event_id"] for line in lines}
            self.sent.tried |= ids
            first = True
            while (answer := self._try(body)) is None:
                first = False
                time.sleep(PAUSE_SECONDS)
            self._check(answer, len(ids), {0} if first else {0, len(ids)})
            self.sent.answered |= ids
            if self._rng.random() < REPEATS_ANSWERED and (again := post(self._port, body, self._headers)):
                self.sent.repeats += 1
                self._check(again, len(ids), {len(ids)})
            time.sleep(self._rng.uniform(0, LONGEST_REST))

    def _try(self, body: bytes) -> dict[str, Any] | None:
        if self._rng.random() < LOSES_ANSWER:
            self.sent.cut += send_and_hang_up(self._port, body, self._headers, self._rng.uniform(0, 0.03))
            return None
        return post(self._port, body, self._headers)

    def _check(self, answer: dict[str, Any], count: int, duplicates: set[int]) -> None:
        """A request is kept whole or not at all, so a repeat of it is a repeat of all or nothing."""
        good = answer["accepted"] == count and not answer["rejected"] and answer["duplicates"] in duplicates
        if not good:
            self.sent.faults.append(f"{self.name}: {count} events, {sorted(duplicates)} repeats: {answer}")


def post(port: int, body: bytes, headers: dict[str, str]) -> dict[str, Any] | None:
    """The receipt, or None where there was none: nobody there, cut off, or told to wait."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/v1/events", body, headers)
        reply = connection.getresponse()
        raw = reply.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if reply.status in (429, 503):
        return None
    assert reply.status == 200, (reply.status, raw)
    receipt: dict[str, Any] = json.loads(raw)
    return receipt


def send_and_hang_up(port: int, body: bytes, headers: dict[str, str], patience: float) -> bool:
    """Send a whole request and cut the connection before its answer is read; whether it got that far."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            # a reset, not an orderly end: what a lost network looks like from the other side
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(
                f"POST /v1/events HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            time.sleep(patience)
    except OSError:
        return False
    return True
