"""One simulated agent: a process of its own that plays its script in real time.

Run as a file of its own, standard library only, so that it starts at once and stays small.
The script is one line of JSON on stdin; when stdin closes, whoever started it is gone and
it ends. On stdout it says, a JSON object a line, which session it finished and when the
misbehaviour of a story began.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import secrets
import signal
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

PATIENCE_SECONDS = 60.0
"""How long one batch is offered again before the agent gives up and ends with an error."""


MOST_BEHIND_SECONDS = 0.5
"""An agent that was held up catches up this much and no more."""


class Sender:
    """Posts batches over one connection; waits when asked to; never loses its place."""

    def __init__(self, url: str, key: str | None, done: threading.Event) -> None:
        self._done = done
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._headers = {"Content-Type": "application/x-ndjson"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._connection: http.client.HTTPConnection | None = None

    def post(self, events: list[dict[str, Any]]) -> None:
        """Send ``events``; with the same ids again after a lost connection, 429 or 503, until told to end.

        Raises RuntimeError when the daemon refuses an event or stays away too long.
        """
        body = "\n".join(json.dumps(event) for event in events).encode()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                status, wait, answer = self._once(body)
            except (OSError, http.client.HTTPException) as error:
                self._connection = None
                status, wait, answer = 503, 0.3, str(error).encode()
            if status < 300 and not json.loads(answer).get("rejected"):
                return
            if status not in (429, 503) or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon answered {status}: {answer[:500].decode(errors='replace')}")
            if self._done.wait(min(wait, 5.0)):
                return

    def _once(self, body: bytes) -> tuple[int, float, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=15)
        self._connection.request("POST", "/v1/events", body, self._headers)
        reply = self._connection.getresponse()
        wait = reply.getheader("Retry-After") or ""
        return reply.status, float(wait) if wait.isdigit() else 1.0, reply.read()


class Player:
    """Plays sessions until told to end."""

    def __init__(self, script: dict[str, Any]) -> None:
        self.done = threading.Event()
        self.sender = Sender(script["url"], script["key"], self.done)
        self.columns = dict(script["columns"])
        self.columns["agent_instance_id"] = f"{self.columns['agent_id']}-{os.getpid()}"
        self.sessions = script["sessions"]
        self.run = script["run"]
        self.rest = script["rest"]
        self._due = time.monotonic()

    def play(self) -> None:
        """Every session once; then, with long rests, those that may be repeated."""
        for lap in itertools.count(1):
            suffix = f"-{self.run}" + (f"-{lap}" if lap > 1 else "")
            for session in self.sessions:
                if lap == 1 or session["repeat"]:
                    if self._wait(session["pause"] + (self.rest if lap > 1 else 0.0)):
                        return
                    self._session(session, suffix)
                if self.done.is_set():
                    return
            if not any(session["repeat"] for session in self.sessions):
                return

    def _wait(self, seconds: float) -> bool:
        """Wait until ``seconds`` after the moment that was due last; whether to end.

        Sending takes its time in the background of a real agent, so it does not add up here.
        """
        self._due = max(self._due + seconds, time.monotonic() - MOST_BEHIND_SECONDS)
        return self.done.wait(max(0.0, self._due - time.monotonic()))

    def _session(self, session: dict[str, Any], suffix: str) -> None:
        session_id = session["id"] + suffix
        say("begun", session_id, story=session["story"])
        for step in session["steps"]:
            if self._wait(step["delay"]):
                return
            events = [self._event(event, session_id, suffix) for event in step["events"]]
            self.sender.post(events)
            if step["telling"] is not None:
                told = events[step["telling"]]
                facts = {"at": told["timestamp"], "event_id": told["event_id"]}
                say("telling", session_id, story=session["story"], **facts)
        say("done", session_id, story=session["story"])

    def _event(self, event: dict[str, Any], session_id: str, suffix: str) -> dict[str, Any]:
        known = {
            **self.columns,
            **event,
            "event_id": uuid7(time.time_ns() // 1_000_000, secrets.randbits(74)),
            "timestamp": datetime.now(UTC).isoformat(timespec="microseconds"),
            "session_id": session_id,
        }
        for name in ("tool_call_id", "correlation_id"):
            if name in known:
                known[name] += suffix
        return known


def uuid7(millis: int, bits: int) -> str:
    """A UUID of RFC 9562, section 5.7, from Unix milliseconds and 74 random bits."""
    value = millis << 80 | 7 << 76 | (bits >> 62) << 64 | 2 << 62 | (bits & (1 << 62) - 1)
    return str(uuid.UUID(int=value))


def say(kind: str, session_id: str, **facts: Any) -> None:
    """One line for whoever runs the fleet."""
    print(json.dumps({"kind": kind, "session_id": session_id, **facts}), flush=True)


def main() -> int:
    """Play the script on stdin; 0 when ended on request, 1 when the daemon refused."""
    player = Player(json.loads(sys.stdin.readline()))
    signal.signal(signal.SIGTERM, lambda *_: player.done.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_stdin, args=(player,), daemon=True).start()
    try:
        player.play()
    except RuntimeError as error:
        print(f"{player.columns['agent_id']}: {error}", file=sys.stderr)
        return 1
    return 0


def _end_with_stdin(player: Player) -> None:
    while os.read(0, 4_096):
        pass
    player.done.set()


if __name__ == "__main__":
    sys.exit(main())
