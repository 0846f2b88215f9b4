"""HTTP in: events as JSON, telemetry as OTLP. An answer of 200 means: on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from monitor.settings import EdgeSettings, Settings
from monitor.sources import body
from monitor.sources.admission import Busy
from monitor.sources.commit import FULL_SECONDS
from monitor.sources.door import Door, Rooms
from monitor.sources.gate import Rejection
from monitor.sources.keys import Keys
from monitor.sources.otlp_answers import PROTOBUF, refusal
from monitor.sources.otlp_http import OTLP_PATHS, OtlpRoutes, content_type
from monitor.sources.problem import ProblemError, json_response
from monitor.sources.redelivery import Redelivery

if TYPE_CHECKING:
    from monitor.pipeline import Intake


def edge_app(
    intake: Intake, keys: Keys, settings: Settings, ready: Callable[[], Mapping[str, Any]]
) -> Starlette:
    """The edge's HTTP side. ``ready`` says in ``ready`` whether events can be taken in now.

    The committer behind ``intake`` belongs to the caller, who starts and drains it.
    """
    door = Door(intake, keys, settings.edge)
    events = EventRoutes(intake, door, settings.edge)
    otlp = OtlpRoutes(intake, door, settings.edge)

    async def healthz(request: Request) -> Response:
        return json_response({"status": "ok"})

    async def readyz(request: Request) -> Response:
        found = dict(ready())
        return json_response(found, 200 if found.get("ready") else 503)

    app = Starlette(
        routes=[
            Route("/v1/events", events.events, methods=["POST"]),
            *(Route(path, getattr(otlp, path.rpartition("/")[2]), methods=["POST"]) for path in OTLP_PATHS),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ],
        middleware=[Middleware(Rooms, admission=intake.committer.admission)],
        exception_handlers={
            ProblemError: _show_problem,
            Busy: _show_busy,
            HTTPException: _show_http,
            ClientDisconnect: _show_gone,
            Exception: _show_fault,
        },
    )
    again = Redelivery(app, intake, door, keys, settings)
    app.router.routes.append(Route("/v1/dead-letters/replay", again.replay, methods=["POST"]))
    return app


class EventRoutes:
    """Events as JSON, over one intake."""

    def __init__(self, intake: Intake, door: Door, settings: EdgeSettings) -> None:
        self._intake = intake
        self._door = door
        self._settings = settings

    async def events(self, request: Request) -> Response:
        """POST /v1/events: an object, an array or NDJSON."""
        sender = await self._door.sender(request)
        raw = await self._door.read(request, sender)
        try:
            items = body.records(
                raw, request.headers.get("content-type", ""), self._settings.max_waiting_events
            )
        except body.BodyFaultError as fault:
            await self._door.refuse(sender, fault.status, fault.reason, raw)
        receipt = await self._intake.receive(sender, items)
        rejected = _shown(receipt.rejected)
        if items and not receipt.accepted:
            raise ProblemError(
                422, "every event was refused; see rejected for each one's reason", rejected=rejected
            )
        return json_response(
            {"accepted": receipt.accepted, "duplicates": receipt.duplicates, "rejected": rejected}
        )


def _shown(rejected: list[Rejection]) -> list[dict[str, Any]]:
    return [{"index": fault.index, "reason": fault.reason} for fault in rejected]


async def _show_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return _as_asked(request, error)


async def _show_busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, Busy)
    return _as_asked(
        request, ProblemError(error.status, error.reason, {"Retry-After": str(error.retry_after)})
    )


def _as_asked(request: Request, error: ProblemError) -> Response:
    """The error in the form that this way in speaks."""
    kind = content_type(request)
    # exporters are also set to paths that do not exist, such as /v1/profiles
    if request.url.path not in OTLP_PATHS and kind != PROTOBUF:
        return error.response()
    return refusal(error, kind != PROTOBUF)


async def _show_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = "POST to /v1/events, /v1/traces or /v1/logs; GET /healthz or /readyz"
    return _as_asked(request, ProblemError(error.status_code, detail, error.headers))


async def _show_gone(request: Request, error: Exception) -> Response:
    # Nobody is left to read this; it only keeps a hung-up client out of the error log.
    return ProblemError(400, "the connection ended before the body did; send it again").response()


async def _show_fault(request: Request, error: Exception) -> Response:
    told = "an error of Watchkeeper itself; its log says more. Send the request again"
    # the server ends the connection after a fault, and a client must not send more on it
    closing = {"Connection": "close"}
    if request.method != "POST":
        return ProblemError(500, told, closing).response()
    # OTLP exporters drop what is answered 500, and nothing of it has been kept.
    return _as_asked(request, ProblemError(503, told, {"Retry-After": str(FULL_SECONDS), **closing}))
