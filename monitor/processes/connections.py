"""Connections that cost more than they bring are closed: too many, too slow, too large a head.

uvicorn bounds the rest between requests, and nothing else. Here every phase of a request has
its deadline, as in Apache's mod_reqtimeout: a body's is put off by what has arrived of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from monitor.settings import EdgeSettings
from monitor.sources.problem import plain_answer

MAX_HEAD_BYTES = 64 << 10
"""Request line, header fields and trailers together."""

UNREAD_SECONDS = 20.0
"""A client that does not read its answer for so long is cut off."""

LINGER_SECONDS = 2.0
"""A closed connection may take so long to deliver its last words."""


@dataclass(frozen=True)
class Limits:
    """What a server grants a connection; seconds, bytes per second, and numbers of connections."""

    head_seconds: float = 10
    body_seconds: float = 20
    min_body_rate: int = 4096
    idle_seconds: float = 15
    connections: int = 1000
    per_address: int = 500

    @classmethod
    def of(cls, edge: EdgeSettings) -> Limits:
        """The limits that the settings give the edge."""
        return cls(
            edge.head_seconds,
            edge.body_seconds,
            edge.min_body_rate,
            edge.idle_seconds,
            edge.max_connections,
            edge.max_connections_per_address,
        )


@dataclass
class Guard:
    """The connections of one server."""

    limits: Limits
    open: int = 0
    turned_away: int = 0
    too_slow: int = 0
    _by_address: Counter[str] = field(default_factory=Counter)

    def enter(self, address: str) -> bool:
        """Count a connection in, unless there are too many."""
        limits = self.limits
        if self.open >= limits.connections or self._by_address[address] >= limits.per_address:
            self.turned_away += 1
            return False
        self.open += 1
        self._by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count it out."""
        self.open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def metrics(self) -> dict[str, float]:
        """A gauge and two counters."""
        return {
            "connections": float(self.open),
            "connections_refused_total": float(self.turned_away),
            "slow_clients_total": float(self.too_slow),
        }


class Phase(Enum):
    """What the next byte from the client belongs to."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with deadlines; ``guard`` is shared by all connections of a server."""

    def __init__(self, guard: Guard, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._guard = guard
        self._limits = guard.limits
        self._address: str | None = None
        self._phase = Phase.HEAD
        self._head_bytes = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    # --- the connection ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it in, or turn it away."""
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if self._guard.enter(address):
            self._address = address
            self._expect(self._limits.head_seconds)
        else:
            self._end(503, "too many connections; close some, or send again later", {"Retry-After": "1"})

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        super().connection_lost(exc)
        if self._address is not None:
            self._guard.leave(self._address)
            self._address = None
        self._stop_timer()
        self.resume_writing()

    def pause_writing(self) -> None:
        """The client does not read; it gets so long to begin again."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again, or is gone."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    # --- a request ---

    def data_received(self, data: bytes) -> None:
        """Any byte ends the rest between requests, even one that begins none."""
        if self._phase is Phase.IDLE:
            self._begin_head()
        super().data_received(data)
        if self._phase is Phase.HEAD:
            self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._end(431, f"more than {MAX_HEAD_BYTES} bytes of header; send fewer or shorter fields")

    def on_message_begin(self) -> None:
        """A request line begins."""
        super().on_message_begin()
        self._begin_head()

    def _begin_head(self) -> None:
        self._phase = Phase.HEAD
        self._head_bytes = 0
        self._expect(self._limits.head_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers count too: they come after the head, and uvicorn keeps them."""
        super().on_header(name, value)
        if self._phase is Phase.BODY:
            self._head_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """The body begins."""
        self._phase = Phase.BODY
        self._head_bytes = 0
        self._expect(self._limits.body_seconds)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """What arrives puts the deadline off, as long as somebody waits for it."""
        if not self.cycle.response_complete:
            self._due += len(body) / self._limits.min_body_rate
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Now it is our turn: the answer has no deadline here."""
        self._phase = Phase.IDLE
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A connection that was closed with the answer must not wait for its reader for ever."""
        super().on_response_complete()
        if self.transport.is_closing():
            self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """The rest between requests is over, unless the next has begun meanwhile."""
        if self._phase is Phase.IDLE:
            super().timeout_keep_alive_handler()
            self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    # --- deadlines ---

    def _expect(self, seconds: float) -> None:
        self._stop_timer()
        self._due = self.loop.time() + seconds
        self._timer = self.loop.call_at(self._due, self._expired)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expired(self) -> None:
        if self.pipeline:
            # A later request is not read on before the one ahead of it has been answered.
            self._expect(self._limits.body_seconds)
        elif self._due > self.loop.time():
            self._timer = self.loop.call_at(self._due, self._expired)
        else:
            self._guard.too_slow += 1
            self._end(408, "the rest of the request did not come in time; send it again")

    def _end(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        """Close the connection, with an answer where one can still be given."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        nothing_asked = self._phase is Phase.HEAD and not self._head_bytes and status == 408
        if self.cycle is None or self.cycle.response_complete:
            awaited = not nothing_asked and self._phase is not Phase.BODY
        else:
            awaited = self._phase is Phase.BODY and not self.cycle.response_started
        if awaited:
            self.transport.write(plain_answer(status, detail, headers))
        self.transport.close()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)
