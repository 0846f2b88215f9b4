"""The reference kill-switch endpoint: the receiving side of the contract, whole.

It checks signature and time (Standard Webhooks), carries out each key once, answers a
repetition with the same answer, and does nothing after ``expires_at``. What was done is
kept in memory: a real endpoint keeps its keys where a restart does not lose them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

MAX_BODY_BYTES = 64 << 10
MAX_KEYS = 10_000


@dataclass(frozen=True)
class StopResult:
    """What became of a stop at one enforcement point.

    ``state`` is ``stopped`` where nothing of the target acts any more, else ``failed``.
    """

    state: Literal["stopped", "failed"]
    name: str
    detail: str = ""


Stop = Callable[[dict[str, Any]], Awaitable[StopResult | Sequence[StopResult]]]
"""Stops a target (scope, tenant, environment, agent_id, session_id); returns once it is so."""


class Call(msgspec.Struct):
    """What the endpoint reads of an order."""

    request_id: str
    action: str
    target: dict[str, Any]
    expires_at: datetime
    dry_run: bool = False


class Envelope(msgspec.Struct):
    """The order as it is sent."""

    type: str
    timestamp: datetime
    data: Call


@dataclass
class Effect:
    """One key: the bytes it came with, the work, and whether a 202 has been answered."""

    body: bytes
    work: asyncio.Task[dict[str, Any]]
    polled: bool = False


def endpoint_app(secret: str, stop: Stop, patience: float = 5.0) -> Starlette:
    """An ASGI app that takes orders by POST at ``/kill``.

    ``secret`` is a Standard Webhooks secret. A stop that takes longer than ``patience``
    seconds is answered 202, with the address at which to ask again. Where ``stop`` raises,
    the answer is 500 and the key is free again.
    """
    desk = _Desk(Webhook(secret), stop, patience)
    return Starlette(
        routes=[
            Route("/kill", desk.order, methods=["POST"]),
            Route("/orders/{request_id}", desk.status, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _problem},
    )


class _Desk:
    def __init__(self, webhook: Webhook, stop: Stop, patience: float) -> None:
        self._webhook = webhook
        self._stop = stop
        self._patience = patience
        self._effects: dict[str, Effect] = {}

    async def order(self, request: Request) -> Response:
        body = await _body(request)
        self._verify(request.headers, body)
        try:
            call = msgspec.json.decode(body, type=Envelope).data
        except msgspec.DecodeError as fault:
            raise HTTPException(422, f"the order cannot be read: {fault}") from None
        key = request.headers["webhook-id"]
        if call.request_id != key or request.headers.get("idempotency-key") != f'"{key}"':
            raise HTTPException(422, "request_id, webhook-id and Idempotency-Key must be the same")
        known = self._effects.get(key)
        if known is not None:
            return await self._again(key, known, body)
        if call.expires_at <= datetime.now(UTC):
            raise HTTPException(422, "the order has expired; nothing was done")
        if call.action != "stop" or call.target.get("scope") not in ("session", "agent"):
            raise HTTPException(422, "this endpoint only stops sessions and agents")
        if call.dry_run:
            return JSONResponse({"request_id": key, "state": "dry_run", "enforcement_points": []})
        return await self._begin(key, call, body)

    async def status(self, request: Request) -> Response:
        self._verify(request.headers, b"")
        key = request.path_params["request_id"]
        effect = self._effects.get(key)
        if effect is None or request.headers["webhook-id"] != key:
            raise HTTPException(404, "no such order")
        return await self._answer(key, effect)

    async def _begin(self, key: str, call: Call, body: bytes) -> Response:
        finished = [old for old, effect in self._effects.items() if effect.work.done()]
        for old in finished[: max(0, len(self._effects) - MAX_KEYS + 1)]:
            del self._effects[old]
        effect = self._effects[key] = Effect(body, asyncio.create_task(self._carry_out(key, call.target)))
        # The work goes on where the caller hangs up: its retry then finds what was done.
        await asyncio.wait([effect.work], timeout=self._patience)
        effect.polled = not effect.work.done()
        return await self._answer(key, effect)

    async def _again(self, key: str, effect: Effect, body: bytes) -> Response:
        if effect.body != body:
            raise HTTPException(422, "this key came with another body before")
        if not effect.work.done() and not effect.polled:
            raise HTTPException(409, "the same order is being carried out", {"Retry-After": "1"})
        return await self._answer(key, effect)

    async def _answer(self, key: str, effect: Effect) -> Response:
        if not effect.work.done():
            headers = {"Location": f"/orders/{key}", "Retry-After": "1"}
            return JSONResponse({"request_id": key, "state": "accepted"}, 202, headers)
        if effect.work.exception() is not None:
            self._effects.pop(key, None)
            raise HTTPException(500, "the stop failed; try again")
        return JSONResponse(effect.work.result())

    async def _carry_out(self, key: str, target: dict[str, Any]) -> dict[str, Any]:
        """Stop the target, and the answer that says how far that went."""
        result = await self._stop(target)
        results = [result] if isinstance(result, StopResult) else result
        at = datetime.now(UTC).isoformat()
        points = [
            {
                "name": point.name,
                "state": "contained" if point.state == "stopped" else "failed",
                "at": at,
                "detail": point.detail,
            }
            for point in results
        ]
        stopped = sum(point.state == "stopped" for point in results)
        state = "failed" if not stopped else "contained" if stopped == len(results) else "partial"
        detail = "; ".join(point.detail for point in results if point.state == "failed")
        return {"request_id": key, "state": state, "detail": detail, "enforcement_points": points}

    def _verify(self, headers: Mapping[str, str], body: bytes) -> None:
        try:
            self._webhook.verify(body, dict(headers), json_parse=False)
        except (WebhookVerificationError, ValueError):
            raise HTTPException(401, "the signature or its time is not valid") from None


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise HTTPException(413, f"an order has at most {MAX_BODY_BYTES} bytes")
    except ClientDisconnect:
        raise HTTPException(400, "the order did not arrive whole") from None
    return bytes(body)


async def _problem(_request: Request, fault: Exception) -> Response:
    """A problem document (RFC 9457)."""
    assert isinstance(fault, HTTPException)
    return JSONResponse(
        {
            "type": "about:blank",
            "title": "Order refused",
            "status": fault.status_code,
            "detail": fault.detail,
        },
        fault.status_code,
        dict(fault.headers or {}),
        media_type="application/problem+json",
    )
