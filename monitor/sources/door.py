"""What every request passes first: who sends, and the body within its limits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from starlette.requests import Request

from monitor.settings import EdgeSettings
from monitor.sources import body
from monitor.sources.gate import Rejected
from monitor.sources.keys import KEYLESS, Keys, Sender
from monitor.sources.problem import ProblemError

if TYPE_CHECKING:
    from monitor.pipeline import Intake

REPLAY_HEADER = "watchkeeper-replay"
"""``true`` marks every event of the request as replayed; needs the scope ``replay``."""

LOOPBACK = ("127.0.0.1", "::1")


class Door:
    """Keys and limits, the same for every route; what is refused here becomes a dead letter."""

    def __init__(self, intake: Intake, keys: Keys, settings: EdgeSettings) -> None:
        self._intake = intake
        self._keys = keys
        self._settings = settings

    async def sender(self, request: Request) -> Sender:
        """Who sends. Raises ProblemError: 401 without a valid key, 403 without the scope."""
        authorization = request.headers.get("authorization")
        if authorization is None and self._keyless(request):
            sender: Sender | None = KEYLESS
        else:
            sender = self._keys.authenticate(authorization)
        if sender is None:
            raise ProblemError(
                401,
                "send Authorization: Bearer with a key of `watchkeeper keys create`",
                {"WWW-Authenticate": 'Bearer realm="watchkeeper"'},
            )
        replaying = request.headers.get(REPLAY_HEADER, "").strip().lower() == "true"
        for scope in ("ingest", "replay") if replaying else ("ingest",):
            if scope not in sender.scopes:
                await self.refuse(sender, 403, f"the key lacks the scope {scope}; use one that has it", None)
        return replace(sender, replaying=replaying)

    def _keyless(self, request: Request) -> bool:
        # A web page can make this machine's browser post to loopback, but not without an Origin.
        local = request.client is not None and request.client.host in LOOPBACK
        return self._settings.keyless_loopback and local and "origin" not in request.headers

    async def read(self, request: Request, sender: Sender) -> bytes:
        """The body, unpacked. Raises ProblemError where it breaks a limit."""
        headers = request.headers
        try:
            return await body.read(
                request.stream(),
                headers.get("content-length"),
                headers.get("content-encoding", ""),
                self._settings.max_body_bytes,
            )
        except body.BodyFaultError as fault:
            await self.refuse(sender, fault.status, fault.reason, fault.raw)

    async def refuse(self, sender: Sender, status: int, reason: str, raw: bytes | None) -> NoReturn:
        """Keep a dead letter of a request that is refused whole, and say so."""
        await self._intake.receive(sender, [Rejected(reason, raw)])
        raise ProblemError(status, reason, rejected=[{"index": 0, "reason": reason}])
