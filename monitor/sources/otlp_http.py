"""OTLP over HTTP: traces and logs in, events out. Source: OpenTelemetry protocol specification, OTLP/HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from starlette.requests import Request
from starlette.responses import Response

from monitor.settings import EdgeSettings
from monitor.sources.dialect_files import MOST_EVENTS
from monitor.sources.dialect_set import Dialects, Mapped
from monitor.sources.door import Door
from monitor.sources.gate import Rejected, Rejection
from monitor.sources.keys import Sender
from monitor.sources.otlp import BadBodyError, Span, decode_logs, decode_protobuf
from monitor.sources.otlp_alone import Alone
from monitor.sources.otlp_answers import JSON, PROTOBUF, Signal, response
from monitor.sources.otlp_json import decode_json, decode_json_logs

if TYPE_CHECKING:
    from monitor.pipeline import Intake

OTLP_PATHS = ("/v1/traces", "/v1/logs", "/v1/metrics")

LARGE_BYTES = 64 << 10
"""A body beyond this is decoded and mapped in a thread, so that it holds up nobody else."""

Decoder = Callable[[bytes, int], list[Span | Rejected]]

DECODERS: dict[tuple[Signal, str], Decoder] = {
    ("traces", PROTOBUF): decode_protobuf,
    ("traces", JSON): decode_json,
    ("logs", PROTOBUF): decode_logs,
    ("logs", JSON): decode_json_logs,
}


class OtlpRoutes:
    """The OTLP ways in, over one intake."""

    def __init__(self, intake: Intake, door: Door, settings: EdgeSettings) -> None:
        self._intake = intake
        self._door = door
        self._dialects = Dialects.load(settings.dialects)
        # A request of more could never be admitted.
        self._most = settings.max_waiting_events // MOST_EVENTS

    async def traces(self, request: Request) -> Response:
        """POST /v1/traces: an ExportTraceServiceRequest, protobuf or JSON."""
        return await self._export(request, "traces")

    async def logs(self, request: Request) -> Response:
        """POST /v1/logs: an ExportLogsServiceRequest, protobuf or JSON."""
        return await self._export(request, "logs")

    async def metrics(self, request: Request) -> Response:
        """POST /v1/metrics: read, counted and dropped, so that an exporter need not be reconfigured."""
        sender = await self._door.sender(request)
        await self._door.read(request, sender)
        self._intake.committer.counters.dropped_metric_requests += 1
        kind = content_type(request)
        as_json = kind == JSON
        return Response(response("metrics", 0, "", as_json), media_type=JSON if as_json else PROTOBUF)

    async def _export(self, request: Request, signal: Literal["traces", "logs"]) -> Response:
        sender = await self._door.sender(request)
        kind = content_type(request)
        raw = await self._door.read(request, sender)
        decode = DECODERS.get((signal, kind))
        if decode is None:
            await self._door.refuse(sender, 415, f"send Content-Type {PROTOBUF} or {JSON}", raw)
        try:
            if len(raw) > LARGE_BYTES:
                records, mapped = await asyncio.to_thread(self._read, decode, raw)
            else:
                records, mapped = self._read(decode, raw)
        except BadBodyError as fault:
            await self._door.refuse(sender, fault.status, fault.reason, raw)
        refused = await self._take(sender, records, mapped, Alone(raw, signal, kind == JSON))
        message = _told(refused)
        return Response(response(signal, len(refused), message, kind == JSON), media_type=kind)

    def _read(self, decode: Decoder, raw: bytes) -> tuple[list[Span | Rejected], Mapped]:
        """The records of a body, and what the good ones become. Raises BadBodyError."""
        records = decode(raw, self._most)
        return records, self._dialects.map([one for one in records if isinstance(one, Span)])

    async def _take(
        self, sender: Sender, records: list[Span | Rejected], mapped: Mapped, alone: Alone
    ) -> list[Rejection]:
        """Keep the events of the good records; one rejection for each record that was refused."""
        faults = [fault for fault in records if isinstance(fault, Rejected)]
        good = [ordinal for ordinal, one in enumerate(records) if isinstance(one, Span)]
        bad = [ordinal for ordinal, one in enumerate(records) if isinstance(one, Rejected)]
        places = [*(good[record] for record in mapped.records), *bad]
        receipt = await self._intake.receive(
            sender, [*mapped.events, *faults], mapped.contexts, alone=lambda index: alone[places[index]]
        )
        counters = self._intake.committer.counters
        counters.ignored_spans += mapped.ignored
        counters.unmapped += mapped.unmapped
        by_record = {places[fault.index]: fault for fault in reversed(receipt.rejected)}
        return list(by_record.values())


def _told(refused: list[Rejection]) -> str:
    """One sentence for the sender; empty where nothing was refused."""
    if not refused:
        return ""
    if len(refused) == 1:
        return f"1 record was refused: {refused[0].reason}"
    return f"{len(refused)} records were refused; the first: {refused[0].reason}"


def content_type(request: Request) -> str:
    """The media type that the request names, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
