"""Why a record is refused: one sentence that names field and remedy, and never echoes much."""

from __future__ import annotations

import re

import msgspec

from monitor.events import BY_NAME, EVENT_TYPES, Kind


def excerpt(text: str, length: int = 40) -> str:
    """A short, escaped piece of what a producer sent, safe to show."""
    cut = text if len(text) <= length else text[:length] + "…"
    return ascii(cut) if len(cut) == len(text) else ascii(cut[:-1]) + "…"


def malformed(error: Exception) -> str:
    """Why bytes are no JSON at all."""
    if isinstance(error, UnicodeDecodeError):
        return "not valid UTF-8; encode the body as UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply; send nested content as JSON text"
    fault = str(error).removeprefix("JSON is malformed: ")
    if "trailing characters" in fault:
        return "more than one JSON value in a line; send one object a line"
    return f"not valid JSON: {fault}; NaN and Infinity are not JSON either"


_PATH = re.compile(r" - at (?:`key` in )?`\$\.?([a-z_]*)[^`]*`$")


def explain(error: msgspec.ValidationError) -> str:
    """What msgspec found, as one sentence that names the field and the remedy, without the value."""
    text = str(error)
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", text):
        return f"{missing[1]}: missing; event_type, agent_id and timestamp are required"
    found = _PATH.search(text)
    name = found[1] if found else ""
    if name not in BY_NAME:
        if text.startswith("Expected `object`"):
            return "an event must be a JSON object"
        return "the record does not fit the schema; see docs/events.md"
    fault = text[: found.start()] if found else text
    column = BY_NAME[name]
    if fault.startswith("Invalid enum value"):
        values = EVENT_TYPES if name == "event_type" else column.values
        return f"{name}: not a known value; use one of {', '.join(values)}"
    if column.kind is Kind.TIMESTAMP:
        return f"{name}: {_plain(fault)}; send RFC 3339 with an offset, such as 2026-01-05T09:30:00Z"
    if "of length <=" in fault and column.kind not in (Kind.MAP, Kind.LIST):
        return f"{name}: {_plain(fault)}; send a shorter name"
    if "of length <=" in fault:
        return f"{name}: more entries than allowed ({_plain(fault)}); send fewer"
    return f"{name}: {_plain(fault)}"


def _plain(fault: str) -> str:
    # msgspec names types only, but where it ever names a value, that value stays short and escaped
    fault = (
        fault.replace("`", "").replace("datetime", "date and time", 1) if len(fault) < 100 else excerpt(fault)
    )
    return fault[:1].lower() + fault[1:]
