"""A real HTTP endpoint that takes events."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Intake:
    """Takes events at /v1/events. ``replies`` are (status, headers) given first, then 200."""

    def __init__(self) -> None:
        self.offered: list[list[dict[str, Any]]] = []
        self.taken: list[dict[str, Any]] = []
        self.replies: list[tuple[int, dict[str, str]]] = []
        self.keys: set[str | None] = set()
        intake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                intake.keys.add(self.headers["Authorization"])
                status, headers = intake.take(json.loads(line) for line in body.splitlines())
                answer = json.dumps({"accepted": 1, "rejected": []}).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(answer))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, events: Iterator[dict[str, Any]]) -> tuple[int, dict[str, str]]:
        self.offered.append(list(events))
        if self.replies:
            return self.replies.pop(0)
        self.taken += self.offered[-1]
        return 200, {}


@pytest.fixture
def intake() -> Iterator[Intake]:
    taking = Intake()
    thread = threading.Thread(target=taking.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield taking
    taking.server.shutdown()
    thread.join()
    taking.server.server_close()
