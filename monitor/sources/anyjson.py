"""Any JSON objects as events: for judging logs that were never written for Watchkeeper.

Unlike the gate it asks for no column. A key is a column where name and value fit, else an attribute;
`a.b` is the key so named, or ``b`` inside ``a``. Only what the rules at hand look at is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl

from detectors.sigma.elements import nested
from monitor.events import COLUMNS, Kind
from monitor.sources.gate import YEARS, Rejection
from monitor.sources.reasons import malformed

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

DEFAULTS = {"event_type": "event", "agent_id": "unknown", "tenant": "default", "identity": "declared"}

EVERY = "*"
"""The attribute key that stands for all values."""

_KINDS = {column.name: column.kind for column in COLUMNS}
_TYPES: dict[Kind, pl.DataType] = {
    Kind.INTEGER: pl.Int64(),
    Kind.FLOAT: pl.Float64(),
    Kind.TIMESTAMP: pl.Datetime("us", "UTC"),
    Kind.LIST: pl.List(pl.String()),
}
_TEXTS = (Kind.STRING, Kind.LABEL, Kind.ENUM)


class AnyJson:
    """Reads the lines of one file, chunk by chunk, as frames with ``columns`` and attribute ``keys``.

    ``name`` is the file's, and with the number of a line the id of an event that has none. An event
    without a time comes when the one before it came.
    """

    def __init__(self, name: str, columns: Iterable[str], keys: Sequence[str]) -> None:
        self._name = name
        self._columns = [one for one in dict.fromkeys(columns) if one not in ("ingested_at", "repeat_of")]
        self._keys = tuple(keys)
        self._moment = EPOCH
        self._alike: dict[str, pl.Series] = {}
        wanted = dict.fromkeys([*self._columns, "timestamp"])
        for key in self._keys:
            wanted |= dict.fromkeys(_homes(key))
        wanted["attributes"] = None
        self._places = {name: place for place, name in enumerate(wanted)}
        fields = [(f"f{place}", Any, None) for place in self._places.values()]
        names = {f"f{place}": name for name, place in self._places.items()}
        self._decoder: Any = msgspec.json.Decoder(msgspec.defstruct("Line", fields, rename=names, gc=False))
        if EVERY in self._keys:
            self._decoder = msgspec.json.Decoder(dict[str, Any])

    def frame(self, lines: Sequence[bytes], numbers: Sequence[int]) -> tuple[pl.DataFrame, list[Rejection]]:
        """The events of the lines, and which of them are no JSON objects."""
        rejections: list[Rejection] = []
        try:
            found = [self._decoder.decode(line) for line in lines]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            found, numbers = self._one_by_one(lines, numbers, rejections)
        if EVERY in self._keys:
            rows = [tuple(map(one.get, self._places)) for one in found]
        else:
            rows = list(map(msgspec.structs.astuple, found))
        given = [*zip(*rows, strict=True)] or [()] * len(self._places)
        chunk = Chunk(found, dict(zip(self._places, given, strict=True)))
        columns = [self._column(name, chunk, numbers) for name in self._columns]
        columns += [self._attribute(key, chunk) for key in self._keys]
        times = columns[self._columns.index("timestamp")]
        columns += [
            times.alias("ingested_at"),
            self._same("replayed", False, pl.Boolean(), len(numbers)),
            self._same("repeat_of", None, pl.String(), len(numbers)),
        ]
        return pl.DataFrame(columns), rejections

    def _one_by_one(
        self, lines: Sequence[bytes], numbers: Sequence[int], rejections: list[Rejection]
    ) -> tuple[list[Any], list[int]]:
        found, kept = [], []
        for line, number in zip(lines, numbers, strict=True):
            try:
                found.append(self._decoder.decode(line))
                kept.append(number)
            except msgspec.ValidationError:
                rejections.append(Rejection(number, "not a JSON object; write one object on each line", line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                rejections.append(Rejection(number, malformed(error), line))
        return found, kept

    def _column(self, name: str, chunk: Chunk, numbers: Sequence[int]) -> pl.Series:
        kind, values = _KINDS[name], chunk.values[name]
        if name not in chunk.outer and name not in ("event_id", "timestamp"):
            return self._same(name, DEFAULTS.get(name), _TYPES.get(kind, pl.String()), len(values))
        if kind in _TEXTS:
            series = _texts(name, values)
            if name == "event_id" and series.null_count():
                series = _texts(
                    name, [one or f"{self._name}:{n}" for one, n in zip(series, numbers, strict=True)]
                )
            return series.fill_null(DEFAULTS[name]) if name in DEFAULTS and series.null_count() else series
        if name == "timestamp":
            return self._times(values)
        return pl.Series(name, [fitted(kind, one) for one in values], dtype=_TYPES[kind])

    def _attribute(self, key: str, chunk: Chunk) -> pl.Series:
        name = f"attributes.{key}"
        if key == EVERY:
            return pl.Series(name, [_all_values(one) for one in chunk.lines], dtype=pl.String)
        homes = [home for home in _homes(key) if home in chunk.inner or home in chunk.outer]
        if not homes:
            return self._same(name, None, pl.String(), len(chunk.lines))
        if homes == [key] and key not in chunk.inner:
            return _texts(name, chunk.values[key])
        columns = [chunk.values[home] for home in homes]
        rows = zip(chunk.objects, *columns, strict=True)
        return _texts(name, [_sought(key, homes, given, top) for given, *top in rows])

    def _same(self, name: str, value: Any, kind: pl.DataType, height: int) -> pl.Series:
        """A column that says the same in every row, mostly nothing; as most columns of most chunks do."""
        kept = self._alike.get(name)
        if kept is None or len(kept) != height:
            kept = self._alike[name] = pl.Series(name, [value] * height, dtype=kind)
        return kept

    def _times(self, values: Sequence[Any]) -> pl.Series:
        kind = _TYPES[Kind.TIMESTAMP]
        try:
            series = pl.Series("timestamp", values, dtype=pl.String)
            read = series.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
        except TypeError:
            read = pl.Series("timestamp", [None] * len(values), dtype=kind)
        if read.null_count():
            found = [
                moment_of(value) if one is None else one for one, value in zip(read, values, strict=True)
            ]
            read = (
                pl.Series("timestamp", found, dtype=kind)
                .fill_null(strategy="forward")
                .fill_null(self._moment)
            )
        if len(read):
            self._moment = read[-1]
        return read


class Chunk:
    """Decoded lines, with the values of each key that is read, by line.

    ``objects`` are those sent as ``attributes``; ``given`` the keys that any line has, there or itself.
    """

    def __init__(self, found: Sequence[Any], values: Mapping[str, Sequence[Any]]) -> None:
        self.lines = found
        self.values = values
        self.objects = [one if isinstance(one, dict) else {} for one in values["attributes"]]
        self.inner = set().union(*self.objects)
        self.outer = {name for name, column in values.items() if column.count(None) < len(found)}


def _homes(key: str) -> list[str]:
    """The key, and the keys of the objects that it may lie in: longest first."""
    steps = key.split(".")
    return [".".join(steps[:count]) for count in range(len(steps), 0, -1)]


def _sought(key: str, homes: Sequence[str], attributes: Mapping[str, Any], top: Sequence[Any]) -> Any:
    """The value of an attribute: by its own name, else inside the nearest object that has it."""
    for home, value in zip(homes, top, strict=True):
        for outer in (attributes.get(home), value):
            inner = outer if home == key else _inside(outer, key[len(home) + 1 :].split("."))
            if inner is not None:
                return inner
    return None


def _inside(value: Any, steps: Sequence[str]) -> Any:
    if isinstance(value, str):
        return nested(value, steps)
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _all_values(line: dict[str, Any]) -> str | None:
    """The values of everything that is no column, a line each."""
    given = line.get("attributes")
    extra = {key: value for key, value in line.items() if key not in _KINDS}
    extra |= given if isinstance(given, dict) else {}
    return "\n".join(_text(value) for value in extra.values() if value is not None) or None


def _texts(name: str, values: Sequence[Any]) -> pl.Series:
    try:
        return pl.Series(name, values, dtype=pl.String)
    except TypeError:
        return pl.Series(name, [None if one is None else _text(one) for one in values], dtype=pl.String)


def fitted(kind: Kind, value: Any) -> Any:
    """The value as a column of numbers, times or lists holds it; None where it cannot."""
    if value is None:
        return None
    if kind is Kind.TIMESTAMP:
        return moment_of(value)
    if kind is Kind.LIST:
        return [_text(item) for item in (value if isinstance(value, list) else [value])]
    try:
        number = msgspec.convert(value, kind.python, strict=False)
    except msgspec.ValidationError:
        return None
    return number if abs(number) < 2**63 else None


def moment_of(value: Any) -> datetime | None:
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
