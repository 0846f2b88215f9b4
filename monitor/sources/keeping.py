"""What an event keeps of its span in ``attributes``: all that no column has taken."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from monitor.sources.origin import LEFT_OUT, SCOPE_LEFT_OUT, Origin
from monitor.sources.otlp import ERROR, PRODUCER, Span, SpanEvent, step_aside
from monitor.sources.reading import text

MAX_STACK = 2000
"""Characters kept of a stack trace, from its end: the innermost frame says most."""

MOST_ATTRIBUTES = 120
"""What a record says beyond this many attributes stands together in one, as JSON."""

_TAKEN = {"exception.type": "error_type", "exception.message": "error_message"}

Failures = list[dict[str, Any]]
"""The attributes of exceptions, each once and with a short stack trace."""


def told(events: list[SpanEvent]) -> tuple[Failures, list[dict[str, Any]]]:
    """Exceptions, and all other events of the span as JSON can hold them."""
    failures: dict[tuple[str, str], dict[str, Any]] = {}
    others = []
    for event in events:
        if event.name != "exception":
            others.append(_whole(event))
            continue
        attributes = _short(event.attributes)
        key = (attributes.get("exception.type", ""), attributes.get("exception.message", ""))
        failures.setdefault(key, attributes)
    return list(failures.values()), others


def kept(
    span: Span,
    origin: Origin,
    used: Collection[str],
    used_of_resource: Collection[str],
    columns: dict[str, object],
) -> dict[str, str]:
    """The attributes of a mapped record's last event; ``used`` are those that its columns hold."""
    attributes = {name: value for name, value in span.attributes.items() if name not in used}
    ours = {name: value for name, value in origin.kept.items() if name not in used_of_resource}
    failures, others = told(span.events) if span.events else ([], [])
    if span.status == ERROR:
        if "error.type" in attributes and columns.get("error_type") == text(attributes["error.type"]):
            del attributes["error.type"]
    elif span.status_message:
        ours["span.status_message"] = span.status_message
    if failures:
        ours |= {
            name: value
            for name, value in failures[0].items()
            if name not in _TAKEN or columns.get(_TAKEN[name]) != value
        }
        others += [{"name": "exception", "attributes": one} for one in failures[1:]]
    return _together(span, origin, attributes, ours, others)


def kept_whole(span: Span, origin: Origin) -> dict[str, str]:
    """The attributes of a record that no dialect maps: all that it says."""
    ours = {**origin.kept}
    if span.status == 1:
        ours["span.status"] = "OK"
    if span.status_message:
        ours["span.status_message"] = span.status_message
    return _together(span, origin, {**span.attributes}, ours, [_whole(event) for event in span.events])


def _together(
    span: Span,
    origin: Origin,
    attributes: dict[str, Any],
    ours: dict[str, Any],
    events: list[dict[str, Any]],
) -> dict[str, str]:
    ours["span.name"], ours["span.kind"] = span.name, span.kind
    if origin.left_out:
        ours[LEFT_OUT] = origin.left_out
    if span.scope_attributes:
        scope = origin.scope(span.scope_attributes)
        ours |= scope.kept
        if scope.left_out:
            ours[SCOPE_LEFT_OUT] = scope.left_out
    if events:
        ours["span.events"] = events
    if span.links:
        ours["span.links"] = span.links
    if span.more:
        ours |= span.more
    if not attributes.keys().isdisjoint(ours):
        step_aside(attributes, ours.keys())
    attributes |= ours
    return _bounded(attributes)


def _whole(event: SpanEvent) -> dict[str, Any]:
    attributes = _short(event.attributes) if event.name == "exception" else event.attributes
    return {"name": event.name, "time_unix_nano": event.time, "attributes": attributes}


def _short(said: dict[str, Any]) -> dict[str, str]:
    """An exception's attributes as text, the end of its stack trace only."""
    attributes = {name: text(value) for name, value in said.items()}
    stack = attributes.get("exception.stacktrace", "")
    if len(stack) > MAX_STACK:
        attributes["exception.stacktrace"] = stack[-MAX_STACK:]
        attributes["exception.stacktrace.length"] = str(len(stack))
    return attributes


def _bounded(attributes: dict[str, Any]) -> dict[str, str]:
    """Attributes as text; those beyond ``MOST_ATTRIBUTES`` together in ``span.more_attributes``."""
    if len(attributes) <= MOST_ATTRIBUTES:
        return {name: text(value) for name, value in attributes.items()}
    names = [*attributes]
    said = {name: text(attributes[name]) for name in names[:MOST_ATTRIBUTES]}
    more = {name: attributes[name] for name in names[MOST_ATTRIBUTES:]}
    if "span.more_attributes" in said:
        more[PRODUCER + "span.more_attributes"] = said["span.more_attributes"]
    said["span.more_attributes"] = text(more)
    return said
