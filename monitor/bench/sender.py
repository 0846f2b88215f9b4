"""The benchmark's client: a process of its own, so that it does not share the daemon's interpreter.

It reads one JSON object of ``Work`` from stdin, sends, and prints one JSON object.
"""

from __future__ import annotations

import http.client
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from monitor.bench.sample import event_bodies, probe, repeated, span_bodies

PROBE_SECONDS = 0.1


class Work(msgspec.Struct):
    """What to send, and where. ``rate`` is events per second, 0 for as fast as the daemon answers."""

    url: str
    token: str
    kind: Literal["events", "spans"]
    count: int
    batch: int
    senders: int
    rate: float = 0.0


class Fault(Exception):  # noqa: N818 - it states a fact
    """The daemon refused what was sent."""


class Sending:
    """Sends bodies over several connections; at a steady rate each body has its moment."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.begun_at = 0
        self.answered_at = 0
        self.busy_answers = 0
        self.probes: dict[str, int] = {}
        self.faults: list[str] = []
        self._bodies = enumerate(self._made())
        self._lock = threading.Lock()
        self._begun = 0.0

    def _made(self) -> Iterator[bytes]:
        if self.work.kind == "spans":
            return iter(list(span_bodies(self.work.count, self.work.batch, datetime.now(UTC))))
        return repeated(event_bodies(self.work.batch), self.work.count, self.work.batch)

    def run(self) -> dict[str, Any]:
        """Send everything; what happened. Raises Fault."""
        threads = [threading.Thread(target=self._send) for _ in range(self.work.senders)]
        self.begun_at, self._begun = time.time_ns() // 1000, time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.faults:
            raise Fault(self.faults[0])
        return {
            "begun_at": self.begun_at,
            "answered_at": self.answered_at,
            "busy_answers": self.busy_answers,
            "probes": self.probes,
        }

    def _next(self) -> tuple[int, bytes] | None:
        with self._lock:
            return next(self._bodies, None)

    def _send(self) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.work.url).netloc, timeout=60)
        spans = self.work.kind == "spans"
        path, kind = (
            ("/v1/traces", "application/x-protobuf") if spans else ("/v1/events", "application/x-ndjson")
        )
        headers = {"Authorization": f"Bearer {self.work.token}", "Content-Type": kind}
        every = max(round(PROBE_SECONDS * self.work.rate / self.work.batch), 1)
        while (step := self._next()) is not None and not self.faults:
            number, body = step
            if self.work.rate:
                due = self._begun + number * self.work.batch / self.work.rate
                time.sleep(max(due - time.monotonic(), 0))
                if number % every == 0:
                    body += b"\n" + probe(number, datetime.now(UTC))
                    self.probes[f"probe-{number}"] = time.time_ns() // 1000
            self._post(connection, path, body, headers)
        self.answered_at = max(self.answered_at, time.time_ns() // 1000)

    def _post(
        self, connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]
    ) -> None:
        while True:
            connection.request("POST", path, body, headers)
            reply = connection.getresponse()
            text = reply.read()
            if reply.status == 200:
                return
            if reply.status not in (429, 503):
                self.faults.append(text.decode()[:300])
                return
            self.busy_answers += 1
            time.sleep(float(reply.headers.get("Retry-After", 1)))


def main() -> None:
    """Process entry."""
    work = msgspec.json.decode(sys.stdin.buffer.read(), type=Work)
    try:
        print(msgspec.json.encode(Sending(work).run()).decode())
    except Fault as fault:
        sys.exit(f"the daemon refused what the benchmark sent: {fault}")


if __name__ == "__main__":
    main()
