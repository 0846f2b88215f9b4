"""Endpoints for the tests: scripted ones over raw sockets, and a wire that loses answers."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from monitor.response.killswitch import Timing
from monitor.settings import ContainmentSettings, EndpointSettings, Mode

SECRET = "whsec_" + "c2VjcmV0LW9mLXRoZS1yZWZlcmVuY2UtZW5kcG9pbnQ="
OTHER_SECRET = "whsec_" + "YW5vdGhlci1zZWNyZXQtbm90LWtub3duLXRoZXJl"
QUICK = Timing(connect=1, read=1, endpoint=4, chain=8, backoff=0.02, poll=4, poll_every=0.02)
RULE = "denied-tool-executed"


def eventually(question: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true answer within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, "it did not come to be in time"
        threading.Event().wait(0.01)
    return answer


def endpoint(url: str, name: str = "main", **more: Any) -> EndpointSettings:
    return EndpointSettings(**{"name": name, "url": url, "secrets": [SECRET], "allow_private": True, **more})


def containment(*endpoints: EndpointSettings, **more: Any) -> ContainmentSettings:
    return ContainmentSettings(**{"mode": Mode.ENFORCE, "endpoints": list(endpoints), **more})


def answer(status: int, payload: Any = None, **headers: str) -> bytes:
    """A whole HTTP answer, with a JSON body unless ``payload`` is bytes."""
    body = payload if isinstance(payload, bytes) else b"" if payload is None else json.dumps(payload).encode()
    lines = [f"HTTP/1.1 {status} Word", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def contained(**more: Any) -> dict[str, Any]:
    points = [
        {"name": "gateway", "state": "contained", "at": "2026-03-02T09:00:00Z", "detail": "key revoked"}
    ]
    return {"state": "contained", "enforcement_points": points, **more}


@dataclass
class Asked:
    """One request as it came over the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Script = bytes | Callable[[socket.socket], None]


@dataclass
class Scripted:
    """Answers connection after connection from a script; the last line repeats."""

    script: list[Script]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def serve(self, connection: socket.socket) -> None:
        with connection:
            self.asked.append(_request(connection))
            line = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            with contextlib.suppress(OSError):
                line(connection) if callable(line) else connection.sendall(line)


@contextlib.contextmanager
def scripted(*script: Script) -> Iterator[Scripted]:
    """A server on a free port that answers as ``script`` says."""
    responder = Scripted(list(script))
    with _listening(responder.serve) as port:
        responder.url = f"http://127.0.0.1:{port}/kill"
        yield responder


@contextlib.contextmanager
def lossy(url: str, lost: int) -> Iterator[str]:
    """A wire to ``url`` that carries requests, but loses the first ``lost`` answers."""
    target = int(url.split(":")[2].split("/")[0])
    left = [lost]

    def carry(connection: socket.socket) -> None:
        with connection, socket.create_connection(("127.0.0.1", target)) as onward:
            asked = _request(connection)
            lines = [f"{asked.method} {asked.path} HTTP/1.1", "connection: close"]
            lines += [f"{name}: {value}" for name, value in asked.headers.items() if name != "connection"]
            onward.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + asked.body)
            reply = b"".join(iter(lambda: onward.recv(65536), b""))
            left[0] -= 1
            if left[0] < 0:
                connection.sendall(reply)

    with _listening(carry) as port:
        yield f"http://127.0.0.1:{port}/kill"


@contextlib.contextmanager
def served(app: Any, **more: Any) -> Iterator[str]:
    """An ASGI app on a free port; the address of its ``/kill``. ``more`` goes to uvicorn."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1, **more)
    )
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/kill"
    finally:
        server.should_exit = True
        thread.join(5)
        listener.close()


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def _listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _request(connection: socket.socket) -> Asked:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return Asked(method, path, headers, body)
