"""OTLP over HTTP: traces in, events out. Source: OpenTelemetry protocol specification, OTLP/HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from monitor.settings import EdgeSettings
from monitor.sources import body, dialect
from monitor.sources.door import Door
from monitor.sources.gate import Rejected, Rejection
from monitor.sources.keys import Sender
from monitor.sources.otlp import BadBodyError, Span, decode_protobuf, response
from monitor.sources.otlp_json import decode_json

if TYPE_CHECKING:
    from monitor.pipeline import Intake


class OtlpRoutes:
    """The OTLP ways in, over one intake."""

    def __init__(self, intake: Intake, door: Door, settings: EdgeSettings) -> None:
        self._intake = intake
        self._door = door
        self._settings = settings
        self._dialect = dialect.load("otel_genai")

    async def traces(self, request: Request) -> Response:
        """POST /v1/traces: an OTLP ExportTraceServiceRequest, protobuf or JSON."""
        sender = await self._door.sender(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        raw = await self._door.read(request, sender)
        if kind not in ("application/x-protobuf", "application/json"):
            await self._door.refuse(
                sender,
                415,
                "send Content-Type application/x-protobuf or application/json",
                raw[: body.KEPT_BYTES],
            )
        try:
            spans = (decode_json if kind == "application/json" else decode_protobuf)(raw, self._most)
        except BadBodyError as fault:
            await self._door.refuse(sender, fault.status, fault.reason, raw[: body.KEPT_BYTES])
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
