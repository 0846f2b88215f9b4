"""What the benchmarks send: a simulated fleet's history as request bodies, and spans of OTLP."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

RUN = b"~run~"
"""Stands in every event id and session id, and is replaced by the number of the repetition."""


def event_bodies(batch: int) -> list[bytes]:
    """The history as NDJSON bodies of ``batch`` events; ``RUN`` makes each repetition a new one."""
    from monitor.simulation.history import write_history
    from monitor.simulation.plan import make_plan

    with tempfile.TemporaryDirectory(prefix="watchkeeper-bench-") as folder:
        file = Path(folder) / "history.ndjson.gz"
        write_history(make_plan(1), datetime.now(UTC), file)
        lines = [_repeatable(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    return [b"\n".join(lines[start : start + batch]) for start in range(0, len(lines), batch)]


def _repeatable(line: bytes) -> bytes:
    for name in (b'"event_id":"', b'"session_id":"'):
        line = line.replace(name, name + RUN, 1)
    return line


def repeated(bodies: list[bytes], events: int, batch: int) -> Iterator[bytes]:
    """Bodies until ``events`` events are together, each repetition under ids of its own."""
    sent, run = 0, 0
    while True:
        for body in bodies:
            count = body.count(b"\n") + 1
            if sent + count > events:
                yield b"\n".join(body.split(b"\n")[: events - sent]).replace(RUN, b"%d-" % run)
                return
            yield body.replace(RUN, b"%d-" % run)
            sent += count
            if sent == events:
                return
        run += 1


def probe(number: int, at: datetime) -> bytes:
    """An agent whose refused call runs all the same: a rule that orders a stop fires at the last line."""
    call = (
        f'"agent_id":"probe-{number}","session_id":"probe-{number}","tool_name":"delete_customer",'
        f'"tool_call_id":"c{number}","timestamp":"{at.isoformat()}"'
    )
    steps = (
        '"event_type":"tool.requested"',
        '"event_type":"policy.checked","policy_decision":"deny","outcome":"blocked"',
        '"event_type":"tool.executed","outcome":"success"',
    )
    return "\n".join(
        f'{{"event_id":"probe-{number}-{place}",{call},{step}}}' for place, step in enumerate(steps)
    ).encode()


def span_bodies(spans: int, batch: int, at: datetime) -> Iterator[bytes]:
    """OTLP protobuf requests of ``batch`` spans: runs of an agent with a model call and tool calls."""
    rng = Random(1)  # noqa: S311 - a simulation
    for start in range(0, spans, batch):
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        _say(group.resource.attributes, {"service.name": f"service-{start // batch % 20}"})
        scope = group.scope_spans.add()
        scope.scope.name = "pydantic-ai"
        while (left := min(batch, spans - start) - len(scope.spans)) > 0:
            _run(scope, rng, int(at.timestamp() * 1e9), min(left, 6))
        yield request.SerializeToString()


def _run(scope: Any, rng: Random, at: int, count: int) -> None:
    """One run of an agent: its root span last, as exporters send it."""
    trace, root = rng.randbytes(16), rng.randbytes(8)
    run = {"gen_ai.agent.name": "clerk", "gen_ai.conversation.id": trace.hex(), "gen_ai.system": "test"}
    model = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "large-1",
        "gen_ai.usage.input_tokens": 812,
        "gen_ai.usage.output_tokens": 96,
        "gen_ai.output.messages": '[{"role":"assistant","parts":[{"type":"text","content":"Paid."}]}]',
    }
    tool = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "lookup_order",
        "gen_ai.tool.call.arguments": '{"number": 7}',
        "gen_ai.tool.call.result": '{"number": 7, "state": "paid"}',
    }
    for place in range(count - 1):
        own = model if place % 2 == 0 else {**tool, "gen_ai.tool.call.id": f"call-{trace.hex()[:8]}-{place}"}
        _span(scope, trace, root, rng.randbytes(8), at + place * 1_000_000, {**run, **own})
    _span(scope, trace, b"", root, at, {**run, "gen_ai.operation.name": "invoke_agent"})


def _span(scope: Any, trace: bytes, parent: bytes, own: bytes, at: int, said: dict[str, Any]) -> None:
    span = scope.spans.add()
    span.trace_id, span.parent_span_id, span.span_id = trace, parent, own
    span.name = f"{said['gen_ai.operation.name']} bench"
    span.start_time_unix_nano, span.end_time_unix_nano = at, at + 900_000
    _say(span.attributes, said)


def _say(attributes: Any, said: dict[str, Any]) -> None:
    for key, value in said.items():
        pair = attributes.add()
        pair.key = key
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value
