"""A column's sources as one function, which says too what attributes it has used up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from monitor.events import BY_NAME, Kind
from monitor.sources.mapping import Gathered, Source, Sources, Text
from monitor.sources.reading import Line, Reader, decoded, first, gather, reader, spoken, text

Picked = tuple[Collection[str], Any]
"""The attributes that need not be kept a second time, and the value; None where nothing is said."""

Picker = Callable[[Line], Picked]

NOTHING: Picked = ((), None)

MOST_NAME = 1024
"""Characters of a name that one record may give to thousands of others; a longer one says nothing."""

_NUMBERS = {c.name: c.kind for c in BY_NAME.values() if c.kind in (Kind.INTEGER, Kind.FLOAT)}
_CHOICES = {c.name: frozenset(c.values) for c in BY_NAME.values() if c.values}


def picker(
    column: str,
    sources: Sources,
    absent: frozenset[str],
    gathered: Gathered | None = None,
    texts: Sequence[Text] = (),
) -> Picker:
    """The function for a column: texts out of messages come first, then what is gathered, then sources."""
    if gathered is None and not texts and all(isinstance(source, str) for source in sources):
        return _plain(column, [str(source) for source in sources], absent)
    readers = taking(sources, absent)

    def pick(line: Line) -> Picked:
        attributes = line[0].attributes
        if texts:
            said = first(spoken(asked, attributes) for asked in texts)
            if said is not None:
                return (), said
        if gathered is not None:
            taken, together = gather(gathered, attributes)
            if together is not None:
                return taken, together
        for used, look in readers:
            value = look(line)
            if value is not None:
                return used, fitting(column, value)
        return NOTHING

    return pick


def _plain(column: str, names: Sequence[str], absent: frozenset[str]) -> Picker:
    """The same where every source is an attribute, which is most often so."""
    used = [(name, (name,)) for name in names]

    def pick(line: Line) -> Picked:
        attributes = line[0].attributes
        for name, alone in used:
            value = attributes.get(name)
            if value is not None and not (value.__class__ is str and value in absent):
                return alone, fitting(column, value)
        return NOTHING

    return pick


def taking(sources: Sources, absent: frozenset[str]) -> list[tuple[tuple[str, ...], Reader]]:
    """Each source as a function, with the attribute that it uses up."""
    return [(_whole(source), reader(source, absent)) for source in sources]


def _whole(source: str | Source) -> tuple[str, ...]:
    if isinstance(source, str):
        return (source,)
    partly = source.path or source.pattern or source.event or source.values or source.value
    return () if partly or source.attribute is None else (source.attribute,)


def naming(value: Any) -> str | None:
    """A value as a name that other records may inherit; None where it is too long for one."""
    said = text(value)
    return said if len(said) <= MOST_NAME else None


def fitting(column: str, value: Any) -> object:
    """A value as the column's type; None where it does not fit, so that it stays an attribute."""
    kind = _NUMBERS.get(column)
    if kind is None:
        said = value if value.__class__ is str else text(value)
        return said if column not in _CHOICES or said in _CHOICES[column] else None
    number = decoded(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    if kind is Kind.FLOAT:
        return float(number) if abs(number) < 2**63 else None
    return int(number) if abs(number) < 2**63 and number == int(number) else None
