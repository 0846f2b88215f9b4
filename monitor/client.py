"""The command line's way to a running daemon: its HTTP interfaces, nothing else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from monitor.runtime import read_runtime

UNUSABLE = (400, 413, 415)
"""Answers to a body that cannot be taken as it is; its halves may be."""

PATIENCE_SECONDS = 60.0
"""How long a sender keeps trying while the daemon is busy or restarting."""

FINAL_STATES = frozenset(
    {"contained", "partial", "unconfirmed", "failed", "expired", "cancelled", "released"}
)
"""States in which an order stays unless a person acts."""


class Unreachable(Exception):  # noqa: N818 - it states a fact, and the CLI shows it as one
    """The daemon cannot be reached, or refused; the message names the remedy."""


class Pause(Exception):  # noqa: N818
    """Nothing is known to have been kept: send the same again after ``seconds``."""

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(reason)
        self.seconds = seconds
        self.reason = reason


class Silence(Pause):
    """There was no answer at all; the daemon may have another address when it is back."""


class Client:
    """Speaks to one daemon. Errors are raised as Unreachable with what the daemon said."""

    def __init__(self, console_url: str, edge_url: str, token: str | None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.console_url = console_url
        self._console = httpx.Client(base_url=console_url, headers=headers, timeout=30, trust_env=False)
        self._edge = httpx.Client(base_url=edge_url, headers=headers, timeout=60, trust_env=False)

    @classmethod
    def find(cls, data: Path) -> Client:
        """The daemon that WATCHKEEPER_URL names, else the one that runs on ``data``."""
        token = os.environ.get("WATCHKEEPER_TOKEN")
        if url := os.environ.get("WATCHKEEPER_URL"):
            return cls(url, os.environ.get("WATCHKEEPER_EDGE_URL", url), token)
        runtime = read_runtime(data)
        if runtime is None:
            raise Unreachable(
                f"no daemon runs on {data}; start one with `watchkeeper serve`, or set "
                "WATCHKEEPER_URL and WATCHKEEPER_TOKEN"
            )
        return cls(runtime.console_url, runtime.edge_url, token or runtime.token)

    def close(self) -> None:
        """Let go of the connections."""
        self._console.close()
        self._edge.close()

    def get(self, path: str, **query: Any) -> Any:
        """A GET on the console's API, as JSON."""
        return self._call("GET", path, params={k: v for k, v in query.items() if v is not None})

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """A POST on the console's API, as JSON."""
        return self._call("POST", path, json=body)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            reply = self._console.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.console_url} does not answer: {error}") from None
        if reply.is_error:
            raise Unreachable(problem(reply))
        return reply.json()

    def hunt(self, asked: Mapping[str, Any], progress: Callable[[float], None]) -> dict[str, Any]:
        """Run a rule over the daemon's history; what it found. Raises Unreachable."""
        try:
            with self._console.stream("POST", "/api/v1/hunts", json=asked, timeout=None) as reply:
                if reply.is_error:
                    reply.read()
                    raise Unreachable(problem(reply))
                for line in filter(None, reply.iter_lines()):
                    told = json.loads(line)
                    if "error" in told:
                        raise Unreachable(told["error"])
                    if "result" in told:
                        found: dict[str, Any] = told["result"]
                        return found
                    progress(told["progress"])
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.console_url} does not answer: {error}") from None
        raise Unreachable("the daemon ended before the hunt did; start it and hunt again")

    def send(self, lines: list[bytes], live: bool) -> dict[str, Any]:
        """``offer`` until it is answered: a busy or restarting daemon is given time.

        Raises Unreachable where it stays so.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self.offer(lines, live)
            except Pause as busy:
                if time.monotonic() > deadline:
                    raise Unreachable(busy.reason) from None
                time.sleep(min(busy.seconds, 10))

    def offer(self, lines: list[bytes], live: bool) -> dict[str, Any]:
        """Send events as one NDJSON request and wait until they are durable.

        Returns accepted, duplicates and rejected. Raises Pause where the daemon is busy or
        gives no answer: the same events can then be sent again, and nothing arrives twice.
        """
        headers = {"Content-Type": "application/x-ndjson"}
        if not live:
            headers["Watchkeeper-Replay"] = "true"
        try:
            reply = self._edge.post("/v1/events", content=b"\n".join(lines), headers=headers)
        except httpx.TransportError as error:
            raise Silence(0.5, f"{self._edge.base_url} does not answer: {error}") from None
        if reply.status_code in (429, 503):
            raise Pause(_retry_after(reply), problem(reply))
        if reply.status_code in UNUSABLE and len(lines) > 1:
            return self._offer_halves(lines, live)
        if reply.status_code not in (200, 422, *UNUSABLE):
            raise Unreachable(problem(reply))
        # What is no request at all is answered without a list of what was refused.
        told = reply.json() if reply.status_code in (200, 422) else {}
        alone = [] if told else [{"index": 0, "reason": problem(reply)}]
        return {"accepted": 0, "duplicates": 0, "rejected": alone, **told}

    def _offer_halves(self, lines: list[bytes], live: bool) -> dict[str, Any]:
        """A request that could not be taken as two, with the indexes of the whole."""
        middle = len(lines) // 2
        first, second = self.offer(lines[:middle], live), self.offer(lines[middle:], live)
        return {
            "accepted": first["accepted"] + second["accepted"],
            "duplicates": first["duplicates"] + second["duplicates"],
            "rejected": first["rejected"]
            + [{**fault, "index": fault["index"] + middle} for fault in second["rejected"]],
        }

    def alerts(self, **query: Any) -> Iterator[dict[str, Any]]:
        """Every alert that matches, newest first."""
        return self._pages("/api/v1/alerts", query)

    def incidents(self, **query: Any) -> Iterator[dict[str, Any]]:
        """Every incident that matches, newest first."""
        return self._pages("/api/v1/incidents", query)

    def dead_letters(self, **query: Any) -> Iterator[dict[str, Any]]:
        """Every dead letter that matches, newest first, without what was refused."""
        return self._pages("/api/v1/dead-letters", query)

    def lines(self, path: str, **query: Any) -> Iterator[str]:
        """The lines of a long answer, as they come."""
        asked = {name: value for name, value in query.items() if value is not None}
        try:
            with self._console.stream("GET", path, params=asked) as reply:
                if reply.is_error:
                    reply.read()
                    raise Unreachable(problem(reply))
                yield from _lines(reply)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.console_url} does not answer: {error}") from None

    def _pages(self, path: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        cursor = None
        while True:
            page = self.get(path, cursor=cursor, **query)
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def follow_order(self, request_id: str, patience: float) -> Iterator[dict[str, Any]]:
        """The order each time its state changes, until it is final or patience ends."""
        deadline = time.monotonic() + patience
        shown = None
        while True:
            order = self.get(f"/api/v1/orders/{request_id}")
            over = order["state"] in FINAL_STATES or time.monotonic() > deadline
            if order["state"] != shown or over:
                shown = order["state"]
                yield order
            if over:
                return
            time.sleep(0.1)


def _lines(reply: httpx.Response) -> Iterator[str]:
    # httpx's own iter_lines also cuts at U+2028 and the like, which JSON does not escape.
    rest = b""
    for piece in reply.iter_bytes():
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line.decode() for line in whole)


def _retry_after(reply: httpx.Response) -> float:
    """Seconds of Retry-After, within reason; 1 where it names none."""
    try:
        return min(max(float(reply.headers.get("Retry-After", 1)), 0.1), 60.0)
    except ValueError:
        return 1.0


def problem(reply: httpx.Response) -> str:
    """An RFC 9457 problem as one line for people."""
    try:
        body = reply.json()
        return f"{body.get('title', reply.reason_phrase)}: {body.get('detail', '')}".rstrip(": ")
    except ValueError:
        return f"{reply.status_code} {reply.reason_phrase}"
