"""SQL as text with bound values, and the table that it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from detectors.base import Fields
from detectors.sigma.elements import EVERY_VALUE
from detectors.sigma.sql_json import nested
from detectors.sigma.tree import ATTRIBUTE, Column


class NoSql(ValueError):  # noqa: N818 - not a failure: the stored events are streamed instead
    """The rule has no exact form in SQL; the message says why and what happens instead."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"this rule's form has no SQL: {reason}; the stored events will be streamed through the "
            "evaluator instead"
        )


@dataclass(frozen=True)
class Sql:
    """ClickHouse SQL and the values of its parameters, which stand in the text as ``{name:Type}``."""

    text: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def given(self, **values: Any) -> Sql:
        """The same with further parameters."""
        return dataclasses.replace(self, parameters={**self.parameters, **values})


@dataclass(frozen=True)
class Table:
    """The stored events: a table with the schema's columns, and ``segment`` and ``row`` of each.

    ``replayed`` and ``repeat_of`` are the attributes that mark a replayed event, and a further
    report of a call.
    """

    fields: Fields
    name: str = "events"
    replayed: str = "watchkeeper.replay"
    repeat_of: str = "watchkeeper.repeat_of"


class Writer:
    """Writes one statement: collects its parameters, and knows how each column is read."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.parameters: dict[str, Any] = {}
        self._bound: dict[tuple[str, str], str] = {}

    def bind(self, kind: str, value: Any) -> str:
        """The value as a parameter of the ClickHouse type ``kind``; equal values share one."""
        key = (kind, repr(value))
        if key not in self._bound:
            name = self._bound[key] = f"p{len(self._bound)}"
            self.parameters[name] = value
        return f"{{{self._bound[key]}:{kind}}}"

    def value(self, column: Column) -> str:
        """What a column holds, NULL where it is absent. Raises NoSql where the table has no such column."""
        fields, name = self.table.fields, column.name
        if name == EVERY_VALUE:
            return "if(empty(attributes), NULL, arrayStringConcat(mapValues(attributes), '\\n'))"
        if column.attribute:
            found = list(self._named(name.removeprefix(ATTRIBUTE)))
            return found[0] if len(found) == 1 else f"coalesce({', '.join(found)})"
        if name in fields.derived:
            return "concat(" + ", '/', ".join(fields.derived[name]) + ")"
        if fields.columns.get(name) != column.kind:
            raise NoSql(f"the stored events have no column {name} of type {column.kind}")
        return name

    def _named(self, key: str) -> Iterator[str]:
        """The attribute, then what the key's dots lead to in a JSON object, best first."""
        yield self.attribute(key)
        steps = key.split(".")
        for inside in range(len(steps) - 1, 0, -1):
            parent = ".".join(steps[:inside])
            names = [self.bind("String", step) for step in steps[inside:]]
            yield nested(self.attribute(parent), names)
            if inside == 1 and self.table.fields.columns.get(parent) == "string":
                yield nested(f"CAST({parent}, 'Nullable(String)')", names)

    def attribute(self, key: str) -> str:
        """The attribute of exactly this name, NULL where it is absent."""
        bound = self.bind("String", key)
        return f"if(mapContains(attributes, {bound}), attributes[{bound}], NULL)"

    @property
    def replayed(self) -> str:
        """Whether the event was replayed."""
        return f"mapContains(attributes, {self.bind('String', self.table.replayed)})"

    def done(self, text: str) -> Sql:
        """The statement with everything bound so far."""
        return Sql(text, dict(self.parameters))
