"""HTTP in: events as JSON, traces as OTLP. An answer of 200 means: on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from monitor.settings import Settings
from monitor.sources import body, dialect
from monitor.sources.commit import Busy
from monitor.sources.gate import Rejected, Rejection
from monitor.sources.keys import KEYLESS, Keys, Sender
from monitor.sources.otlp import BadBodyError, Span, decode_protobuf, response
from monitor.sources.otlp_json import decode_json

if TYPE_CHECKING:
    from monitor.pipeline import Intake

REPLAY_HEADER = "watchkeeper-replay"
"""``true`` marks every event of the request as replayed; needs the scope ``replay``."""

LOOPBACK = ("127.0.0.1", "::1")

TITLES = {
    400: "The request cannot be read",
    401: "An API key is needed",
    403: "The API key does not allow this",
    404: "Nothing is here",
    405: "The method does not fit",
    413: "The request is too large",
    415: "The format is not known",
    422: "No event was accepted",
    429: "Too much is waiting",
    500: "Watchkeeper failed",
    503: "Nothing can be kept now",
}


class ProblemError(Exception):
    """An answer that is an error: RFC 9457, application/problem+json."""

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def response(self) -> Response:
        """The error as sent; ``detail`` names the remedy."""
        content = {
            "type": "about:blank",
            "title": TITLES.get(self.status, "The request failed"),
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }
        return _json(content, self.status, self.headers, "application/problem+json")


def edge_app(
    intake: Intake, keys: Keys, settings: Settings, ready: Callable[[], Mapping[str, Any]]
) -> Starlette:
    """The edge's HTTP side. ``ready`` says in ``ready`` whether events can be taken in now.

    The committer behind ``intake`` belongs to the caller, who starts and drains it.
    """
    edge = Edge(intake, keys, settings)

    async def healthz(request: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(request: Request) -> Response:
        found = dict(ready())
        return _json(found, 200 if found.get("ready") else 503)

    return Starlette(
        routes=[
            Route("/v1/events", edge.events, methods=["POST"]),
            Route("/v1/traces", edge.traces, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ],
        exception_handlers={
            ProblemError: _show_problem,
            Busy: _show_busy,
            HTTPException: _show_http,
            ClientDisconnect: _show_gone,
            Exception: _show_fault,
        },
    )


class Edge:
    """The two ways in, over one intake."""

    def __init__(self, intake: Intake, keys: Keys, settings: Settings) -> None:
        self._intake = intake
        self._keys = keys
        self._settings = settings.edge
        self._dialect = dialect.load("otel_genai")

    async def events(self, request: Request) -> Response:
        """POST /v1/events: an object, an array or NDJSON."""
        sender = await self._sender(request)
        raw = await self._read(request, sender)
        try:
            items = body.records(
                raw, request.headers.get("content-type", ""), self._settings.max_waiting_events
            )
        except body.BodyFaultError as fault:
            await self._refuse(sender, fault.status, fault.reason, fault.raw or raw[: body.KEPT_BYTES])
        receipt = await self._intake.receive(sender, items)
        rejected = _shown(receipt.rejected)
        if items and not receipt.accepted:
            raise ProblemError(
                422, "every event was refused; see rejected for each one's reason", rejected=rejected
            )
        return _json({"accepted": receipt.accepted, "duplicates": receipt.duplicates, "rejected": rejected})

    async def traces(self, request: Request) -> Response:
        """POST /v1/traces: an OTLP ExportTraceServiceRequest, protobuf or JSON."""
        sender = await self._sender(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        raw = await self._read(request, sender)
        if kind not in ("application/x-protobuf", "application/json"):
            await self._refuse(
                sender,
                415,
                "send Content-Type application/x-protobuf or application/json",
                raw[: body.KEPT_BYTES],
            )
        try:
            spans = (decode_json if kind == "application/json" else decode_protobuf)(raw, self._most)
        except BadBodyError as fault:
            await self._refuse(sender, fault.status, fault.reason, raw[: body.KEPT_BYTES])
        refused = await self._take(sender, spans)
        message = f"{len(refused)} spans were refused; the first: {refused[0].reason}" if refused else ""
        return Response(response(len(refused), message, kind == "application/json"), media_type=kind)

    @property
    def _most(self) -> int:
        # A span becomes two events at most, and a request of more could never be admitted.
        return self._settings.max_waiting_events // 2

    async def _take(self, sender: Sender, spans: list[Span | Rejected]) -> list[Rejection]:
        """Map the good spans and keep their events; one rejection for each span that was refused."""
        mapped = self._dialect.map([span for span in spans if isinstance(span, Span)])
        faults = [fault for fault in spans if isinstance(fault, Rejected)]
        receipt = await self._intake.receive(sender, [*mapped.events, *faults])
        self._intake.committer.counters.ignored_spans += mapped.ignored
        by_span = {
            (mapped.spans[fault.index] if fault.index < len(mapped.spans) else ~fault.index): fault
            for fault in reversed(receipt.rejected)
        }
        return list(by_span.values())

    async def _sender(self, request: Request) -> Sender:
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
                await self._refuse(sender, 403, f"the key lacks the scope {scope}; use one that has it", None)
        return replace(sender, replaying=replaying)

    def _keyless(self, request: Request) -> bool:
        # A web page can make this machine's browser post to loopback, but not without an Origin.
        local = request.client is not None and request.client.host in LOOPBACK
        return self._settings.keyless_loopback and local and "origin" not in request.headers

    async def _read(self, request: Request, sender: Sender) -> bytes:
        headers = request.headers
        try:
            return await body.read(
                request.stream(),
                headers.get("content-length"),
                headers.get("content-encoding", ""),
                self._settings.max_body_bytes,
            )
        except body.BodyFaultError as fault:
            await self._refuse(sender, fault.status, fault.reason, fault.raw)

    async def _refuse(self, sender: Sender, status: int, reason: str, raw: bytes | None) -> NoReturn:
        """Keep a dead letter of a request that is refused whole, and say so."""
        await self._intake.receive(sender, [Rejected(reason, raw)])
        raise ProblemError(status, reason, rejected=[{"index": 0, "reason": reason}])


def _shown(rejected: list[Rejection]) -> list[dict[str, Any]]:
    return [{"index": fault.index, "reason": fault.reason} for fault in rejected]


def _json(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None, kind: str = "application/json"
) -> Response:
    return Response(msgspec.json.encode(content), status, dict(headers or {}), kind)


async def _show_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return error.response()


async def _show_busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, Busy)
    return ProblemError(error.status, error.reason, {"Retry-After": str(error.retry_after)}).response()


async def _show_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = "POST to /v1/events or /v1/traces; GET /healthz or /readyz"
    return ProblemError(error.status_code, detail, error.headers).response()


async def _show_gone(request: Request, error: Exception) -> Response:
    # Nobody is left to read this; it only keeps a hung-up client out of the error log.
    return ProblemError(400, "the connection ended before the body did; send it again").response()


async def _show_fault(request: Request, error: Exception) -> Response:
    return ProblemError(
        500, "an error of Watchkeeper itself; its log says more. Send the request again"
    ).response()
