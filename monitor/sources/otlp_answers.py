"""What OTLP senders hear: an export response with partial success, or an error as a google.rpc.Status.

Source: OpenTelemetry protocol specification, OTLP/HTTP Response.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from starlette.responses import Response

from monitor.sources.problem import ProblemError, json_response

Signal = Literal["traces", "logs", "metrics"]

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

_RESPONSES = {
    "traces": (ExportTraceServiceResponse, "rejected_spans", "rejectedSpans"),
    "logs": (ExportLogsServiceResponse, "rejected_log_records", "rejectedLogRecords"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points", "rejectedDataPoints"),
}


def response(signal: Signal, rejected: int, message: str, as_json: bool) -> bytes:
    """An export response; ``partial_success`` only where records were refused."""
    kind, name, json_name = _RESPONSES[signal]
    if as_json:
        partial_success = {json_name: str(rejected), "errorMessage": message}
        return msgspec.json.encode({"partialSuccess": partial_success} if rejected else {})
    reply = kind()
    if rejected:
        setattr(reply.partial_success, name, rejected)
        reply.partial_success.error_message = message
    answer: bytes = reply.SerializeToString()
    return answer


def refusal(error: ProblemError, as_json: bool) -> Response:
    """An error as the specification asks for it; in JSON the fields of RFC 9457 stand beside."""
    if as_json:
        return json_response({"message": error.detail, **error.content()}, error.status, error.headers)
    # google.rpc.Status has this message's wire form: 1 a number, 2 the text
    told = ExportTracePartialSuccess(error_message=error.detail).SerializeToString()
    return Response(told, error.status, error.headers, PROTOBUF)


def told(answer: bytes) -> str:
    """What a google.rpc.Status in protobuf says."""
    said: str = ExportTracePartialSuccess.FromString(answer).error_message
    return said
