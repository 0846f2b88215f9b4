"""What every request passes first: who sends, and the body within its limits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from monitor.settings import EdgeSettings
from monitor.sources import body
from monitor.sources.admission import Admission, Load
from monitor.sources.gate import Form, Rejected, Rejection
from monitor.sources.keys import KEYLESS, Keys, Sender
from monitor.sources.problem import ProblemError

if TYPE_CHECKING:
    from monitor.pipeline import Intake

REPLAY_HEADER = "watchkeeper-replay"
"""``true`` marks every event of the request as replayed; needs the scope ``replay``."""

LOAD = "watchkeeper.load"
"""Where a request's scope holds its Load."""

SENDER = "watchkeeper.sender"
"""Where the scope of a request that did not come over the network names its Sender."""

MOST_CONTENT_TYPE = 100
"""How much of the Content-Type a dead letter remembers."""

LOOPBACK = ("127.0.0.1", "::1")


class Rooms:
    """ASGI middleware: what a request held of the room for bodies is given back with its answer."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        load = scope[LOAD] = Load(self._admission)
        try:
            await self._app(scope, receive, send)
        finally:
            load.release()


class Door:
    """Keys and limits, the same for every route; what is refused here becomes a dead letter."""

    def __init__(self, intake: Intake, keys: Keys, settings: EdgeSettings) -> None:
        self._intake = intake
        self._keys = keys
        self._settings = settings

    async def sender(self, request: Request) -> Sender:
        """Who sends. Raises ProblemError: 401 without a valid key, 403 without the scope."""
        authorization = request.headers.get("authorization")
        sender: Sender | None
        if SENDER in request.scope:
            sender = request.scope[SENDER]
        elif authorization is None and self._keyless(request):
            sender = KEYLESS
        else:
            sender = self._keys.authenticate(authorization)
        if sender is None:
            raise ProblemError(
                401,
                "send Authorization: Bearer with a key of `watchkeeper keys create`",
                {"WWW-Authenticate": 'Bearer realm="watchkeeper"'},
            )
        replaying = request.headers.get(REPLAY_HEADER, "").strip().lower() == "true"
        content_type = request.headers.get("content-type", "")[:MOST_CONTENT_TYPE]
        content_type = self._intake.gate.tellable(content_type, sender)
        sender = replace(sender, replaying=replaying, way=request.url.path, content_type=content_type)
        for scope in ("ingest", "replay") if replaying else ("ingest",):
            if scope not in sender.scopes:
                # Nothing was sent yet that a dead letter could keep.
                reason = f"the key lacks the scope {scope}; use one that has it"
                self._intake.callers.take(sender, (), [Rejection(0, reason)])
                self._intake.committer.counters.rejected += 1
                raise ProblemError(403, reason, rejected=[{"index": 0, "reason": reason}])
        return sender

    def _keyless(self, request: Request) -> bool:
        # A web page can make this machine's browser post to loopback, but not without an Origin.
        local = request.client is not None and request.client.host in LOOPBACK
        return self._settings.keyless_loopback and local and "origin" not in request.headers

    async def read(self, request: Request, sender: Sender) -> bytes:
        """The body, unpacked. Raises ProblemError where it breaks a limit.

        Raises Busy, before the body is read if its length was declared, where there is no
        room for it. The room is given back when the request has been answered (``Rooms``).
        """
        self._intake.committer.check_room(sender.key_id)
        headers = request.headers
        load: Load = request.scope[LOAD]
        try:
            return await body.read(
                request.stream(),
                headers.get("content-length"),
                headers.get("content-encoding", ""),
                self._settings.max_body_bytes,
                partial(load.grow, sender.key_id),
            )
        except body.BodyFaultError as fault:
            await self.refuse(sender, fault.status, fault.reason, fault.raw, "excerpt")

    async def refuse(
        self, sender: Sender, status: int, reason: str, raw: bytes | None, form: Form = "request"
    ) -> NoReturn:
        """Keep a dead letter of a request that is refused whole, and say so."""
        await self._intake.receive(sender, [Rejected(reason, raw, form)])
        raise ProblemError(status, reason, rejected=[{"index": 0, "reason": reason}])
