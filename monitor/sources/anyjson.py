"""Any JSON objects as events: for judging logs that were never written for Watchkeeper.

Unlike the gate it asks for no column: a key is a column where name and value fit, else an attribute.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from monitor.events import COLUMNS, Kind, Record
from monitor.sources.gate import YEARS, Rejected
from monitor.sources.jsonkeys import RepeatedKeyError, refuse_repeats
from monitor.sources.reasons import excerpt, malformed

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

UNKNOWN_AGENT = "unknown"
UNKNOWN_TYPE = "event"

_KINDS = {column.name: column.kind for column in COLUMNS}


class AnyJson:
    """Reads lines one after the other; one without a time comes when the one before it came.

    ``name`` is the file's, and with the number of a line the id of an event that has none.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._moment = EPOCH

    def read(self, line: bytes, number: int) -> Any:
        """The record of one line. Raises Rejected where it is no JSON object, or a key repeats."""
        try:
            values = msgspec.json.decode(line)
            refuse_repeats(line)
        except RepeatedKeyError as error:
            raise Rejected(f"the key {excerpt(error.key)} stands twice in one object; send it once") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Rejected(malformed(error)) from None
        if not isinstance(values, dict):
            raise Rejected("not a JSON object; write one object on each line")
        given = values.pop("attributes", None)
        known, attributes = _sorted(values)
        if isinstance(given, dict):
            attributes |= {key: _text(value) for key, value in given.items() if value is not None}
        elif given is not None:
            attributes["attributes"] = _text(given)
        self._moment = known.get("timestamp", self._moment)
        defaults = {
            "event_id": f"{self._name}:{number}",
            "event_type": UNKNOWN_TYPE,
            "agent_id": UNKNOWN_AGENT,
            "tenant": "default",
            "identity": "declared",
        }
        own = {"timestamp": self._moment, "ingested_at": self._moment, "attributes": attributes or None}
        return Record(**{**defaults, **known, **own})


def _sorted(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Columns with values that fit them, and all the rest as attributes; null is as good as absent."""
    known: dict[str, Any] = {}
    attributes: dict[str, str] = {}
    for key, value in values.items():
        if value is None:
            continue
        kind = _KINDS.get(key)
        fitted = None if kind is None else _fitted(kind, value)
        if fitted is None or fitted == "":
            attributes[key] = _text(value)
        else:
            known[key] = fitted
    return known, attributes


def _fitted(kind: Kind, value: Any) -> Any:
    """The value as its column holds it; None where it cannot."""
    match kind:
        case Kind.STRING | Kind.LABEL | Kind.ENUM:
            return _text(value)
        case Kind.TIMESTAMP:
            return _moment(value)
        case Kind.LIST:
            return [_text(item) for item in (value if isinstance(value, list) else [value])]
        case Kind.INTEGER | Kind.FLOAT:
            try:
                number = msgspec.convert(value, kind.python, strict=False)
            except msgspec.ValidationError:
                return None
            return number if abs(number) < 2**63 else None
    return None


def _moment(value: Any) -> datetime | None:
    """RFC 3339 (UTC where it names no offset), or seconds since 1970."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        else:
            moment = datetime.fromtimestamp(msgspec.convert(value, float), UTC)
        return moment.astimezone(UTC) if moment.year in YEARS else None
    except (ValueError, OverflowError, OSError, msgspec.ValidationError):
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
