"""Builders of spans and of export requests in OTLP/JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monitor.sources.dialect_set import Dialects
from monitor.sources.otlp import Span
from monitor.sources.otlp_json import decode_json

TRACE = "5b8efff798038103d269b633813fc60c"
SECOND = 1_000_000_000
START = 1_767_605_400 * SECOND


def attributes(**values: Any) -> list[dict[str, Any]]:
    """OTLP/JSON attributes; double underscores stand for dots."""
    kinds = {str: "stringValue", bool: "boolValue", int: "intValue", float: "doubleValue"}
    return [{"key": k.replace("__", "."), "value": {kinds[type(v)]: v}} for k, v in values.items()]


def span(number: int, parent: int | None = None, at: float = 0, **values: Any) -> dict[str, Any]:
    """One span in OTLP/JSON; ``status``, ``events`` and the like are its fields, all else attributes."""
    fields = {
        name: values.pop(name) for name in [*values] if name in ("status", "events", "kind", "links", "name")
    }
    found = {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "name": "a span",
        "startTimeUnixNano": str(START + int(at * SECOND)),
        "endTimeUnixNano": str(START + int((at + 1) * SECOND)),
        "attributes": attributes(**values),
        **fields,
    }
    return found if parent is None else {**found, "parentSpanId": f"{parent:016x}"}


def request(*spans: dict[str, Any], **resource: Any) -> bytes:
    """An export request of one resource in OTLP/JSON."""
    resource = {"service__name": "shop", **resource}
    group = {
        "resource": {"attributes": attributes(**resource)},
        "scopeSpans": [{"scope": {}, "spans": list(spans)}],
    }
    return json.dumps({"resourceSpans": [group]}).encode()


def mapped(*spans: dict[str, Any], own: tuple[Path, ...] = (), **resource: Any) -> list[dict[str, Any]]:
    """The events of these spans, sent together; ``own`` are the site's dialect files."""
    decoded = decode_json(request(*spans, **resource), 20_000)
    assert all(isinstance(one, Span) for one in decoded), decoded
    events: list[dict[str, Any]] = Dialects.load(own).map([s for s in decoded if isinstance(s, Span)]).events
    return events


def tool(number: int, parent: int | None = None, **values: Any) -> dict[str, Any]:
    """The span of a tool call."""
    return span(number, parent, gen_ai__operation__name="execute_tool", gen_ai__tool__name="refund", **values)


def agent(number: int, parent: int | None = None, name: str = "clerk", **values: Any) -> dict[str, Any]:
    """The span of an agent's run."""
    return span(number, parent, gen_ai__operation__name="invoke_agent", gen_ai__agent__name=name, **values)
