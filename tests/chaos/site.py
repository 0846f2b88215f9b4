"""The site's kill-switch endpoint for the chaos runs: the reference endpoint, which keeps count."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from monitor.simulation.endpoint import StopResult, endpoint_app
from tests.response.responders import SECRET, served

Target = tuple[str, str, str | None]
"""Scope, agent, session."""


@dataclass
class Site:
    """``effects``: how often each target was stopped. ``asked``: the targets each request id came with."""

    url: str = ""
    effects: Counter[Target] = field(default_factory=Counter)
    asked: dict[str, list[Target]] = field(default_factory=dict)

    async def stop(self, target: dict[str, Any]) -> StopResult:
        self.effects[_target(target)] += 1
        return StopResult("stopped", "gateway", "key revoked")

    async def note(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The reference endpoint, with a note of every order that arrives whole, repeated ones too."""
        body = bytearray()

        async def listen() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            if message["type"] == "http.request" and not message.get("more_body"):
                with contextlib.suppress(ValueError, KeyError):
                    data = json.loads(body)["data"]
                    self.asked.setdefault(data["request_id"], []).append(_target(data["target"]))
            return message

        await self._app(scope, listen, send)

    def __post_init__(self) -> None:
        self._app = endpoint_app(SECRET, self.stop)


def _target(target: dict[str, Any]) -> Target:
    return target["scope"], target["agent_id"], target.get("session_id")


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """The endpoint on a free port, within the block."""
    made = Site()
    with served(made.note, interface="asgi3") as url:
        made.url = url
        yield made
