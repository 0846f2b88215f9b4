"""Dialect files: read, checked against the schema, and put in order. docs/dialects.md shows the form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from monitor.events import BY_NAME, EVENT_TYPES, Kind
from monitor.sources.mapping import Common, EventRule, Mapping
from monitor.sources.picking import fitting

FOLDER = Path(__file__).parent / "dialects"
COMMON = FOLDER / "common.yml"
SHIPPED = tuple(FOLDER / f"{name}.yml" for name in ("openinference", "otel_genai", "mcp"))
"""In the order in which they are asked whether they know a record."""

MOST_EVENTS = 4
"""A record becomes this many events at most."""

OURS = frozenset(
    {
        "event_id",
        "event_type",
        "timestamp",
        "ingested_at",
        "agent_id",
        "identity",
        "correlation_id",
        "revision",
        "span_id",
        "parent_span_id",
        "source",
        "attributes",
    }
)
"""Columns that the ingest fills in by itself, for every dialect alike."""

_FORMS = (Kind.STRING, Kind.LABEL, Kind.ENUM, Kind.INTEGER, Kind.FLOAT)
MAPPABLE = frozenset(name for name, column in BY_NAME.items() if column.kind in _FORMS) - OURS


class DialectError(Exception):
    """A dialect's file cannot be used; the message names file, place and fault."""


def load_common() -> Common:
    """What all dialects share."""
    common: Common = _decoded(COMMON, Common)
    return common


def load_mappings(own: Iterable[Path] = ()) -> list[Mapping]:
    """The site's ``own`` files, then the shipped ones whose names they do not take.

    Raises DialectError where a file is none.
    """
    found: dict[str, Mapping] = {}
    for file in own:
        mapping = read(file)
        if mapping.name in found:
            raise DialectError(f"{file}: another file of edge.dialects has the name {mapping.name!r} too")
        found[mapping.name] = mapping
    for file in SHIPPED:
        mapping = read(file)
        found.setdefault(mapping.name, mapping)
    return [*found.values()]


def read(file: Path) -> Mapping:
    """One file. Raises DialectError where it is none."""
    mapping: Mapping = _decoded(file, Mapping)
    faults = [*_faults(mapping)]
    if faults:
        raise DialectError(f"{file}: {'; '.join(faults)}")
    return mapping


def _decoded(file: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(yaml.safe_load(file.read_text(encoding="utf-8")), kind)
    except OSError as error:
        raise DialectError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DialectError(f"{file}: not UTF-8") from None
    except yaml.YAMLError as error:
        raise DialectError(f"{file}: not valid YAML: {error}") from None
    except msgspec.ValidationError as error:
        raise DialectError(f"{file}: {error}; docs/dialects.md shows the form") from None


def _faults(mapping: Mapping) -> Iterator[str]:
    """Where the mapping names what the schema does not have, or what nothing fills."""
    if not mapping.any_of:
        yield "any_of: name the attributes by which a record of this dialect is known"
    filled = {*mapping.columns, *mapping.gathered, *mapping.messages}
    for column in sorted({*mapping.inherited, *mapping.shared, *filled} - MAPPABLE):
        yield f"{column}: no column that a dialect can fill; see docs/events.md"
    for operation in mapping.operations:
        if len(operation.events) > MOST_EVENTS:
            yield f"operation {operation.names[0]}: more than {MOST_EVENTS} events"
        for rule in operation.events:
            yield from _rule_faults(rule, filled)


def _rule_faults(rule: EventRule, filled: set[str]) -> Iterator[str]:
    if rule.type not in EVENT_TYPES:
        yield f"{rule.type}: no event type; use one of {', '.join(EVENT_TYPES)}"
    for column in sorted({*rule.columns} - filled):
        yield f"{rule.type}: {column} has no source under columns, gathered or messages"
    for column, value in rule.sets.items():
        if column not in MAPPABLE or fitting(column, value) is None:
            yield f"{rule.type}: set {column} to {value!r}: no such column, or not a value of it"
