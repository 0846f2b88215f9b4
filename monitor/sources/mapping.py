"""The form of a dialect's file: how attributes become columns, and operations events."""

from __future__ import annotations

import re
from typing import Literal

import msgspec


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a value stands. The first of ``attribute``, ``event``, ``events`` and ``field`` counts.

    ``event`` reads ``attribute`` of the last span event of that name; ``events`` is every span
    event of these names as a JSON list; ``path`` goes into the value as JSON; ``pattern`` must
    be found in it, and its first group is the value; ``values`` translates it, and drops what it
    does not name; ``value`` takes its place.
    """

    attribute: str | None = None
    event: str | None = None
    events: tuple[str, ...] = ()
    field: Literal["name", "status", "status_message", "exception_type", "exception_message"] | None = None
    path: tuple[str | int, ...] = ()
    pattern: str | None = None
    values: dict[str, str] | None = None
    value: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError, which becomes a fault of the file, where nothing can be read so."""
        places = (self.attribute, self.event, self.field, self.value)
        if not self.events and all(place is None for place in places):
            raise ValueError("a source needs attribute, event, events, field or value")
        if self.event is not None and self.attribute is None:
            raise ValueError("event needs the attribute that is read of it")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r}: {error}") from None


Sources = tuple[str | Source, ...]
"""Best first; the first that says something is taken. A text is an attribute's name."""


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether something stands where a source reads: anything, or with ``equals`` this.

    Values that say nothing ("None", an empty text) stand there too.
    """

    that: str | Source
    exists: bool = True
    equals: str | None = None


class Gathered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All attributes under a prefix as one JSON text; ``nested`` undoes flattened lists and objects."""

    prefix: str
    skip: tuple[str, ...] = msgspec.field(name="except", default=())
    nested: bool = False


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text out of a list of messages ({role, parts: [{type, content}]}, or {role, content}).

    ``first`` (``from`` in the file) names an attribute with the index of this run's first message.
    """

    attribute: str
    role: str
    part: str
    take: Literal["first", "last"]
    first: str | None = msgspec.field(name="from", default=None)


class EventRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event that a span becomes, and the columns it carries.

    It is left out unless every one of ``when`` holds, or where every one of ``unless`` does.
    ``sets`` (``set`` in the file) are columns with a value of their own.
    """

    type: str
    at: Literal["start", "end"]
    columns: tuple[str, ...] = ()
    when: tuple[Condition, ...] = ()
    unless: tuple[Condition, ...] = ()
    sets: dict[str, str] = msgspec.field(name="set", default_factory=dict)


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What spans of these operations become, where ``when`` holds; no event for mere plumbing.

    ``delegates``: an agent that stands above another one has delegated to it. ``wraps``: a span
    that holds one of these operations is the same thing once more, and gives it what it lacks.
    ``agent`` is where the agent's name stands if the dialect's own sources do not say it.
    """

    names: tuple[str, ...]
    events: tuple[EventRule, ...] = ()
    when: tuple[Condition, ...] = ()
    delegates: bool = False
    wraps: tuple[str, ...] = ()
    agent: Sources = ()


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dialect's file. ``any_of`` are attributes of which a record of this dialect has one."""

    name: str
    version: int
    any_of: tuple[str, ...]
    operation: Sources
    agent: Sources
    operations: tuple[Operation, ...]
    columns: dict[str, Sources]
    inherited: dict[str, Sources] = {}
    shared: dict[str, tuple[str, ...]] = {}
    delegated_by: Sources = ()
    gathered: dict[str, Gathered] = {}
    messages: dict[str, tuple[Text, ...]] = {}


class Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all dialects share: common.yml."""

    absent: tuple[str, ...]
    service: tuple[str, ...]
    separator: str
    agent_like: tuple[str, ...]
    log_like: tuple[str, ...]
    shared: dict[str, tuple[str, ...]]
    outcomes: dict[str, tuple[str, ...]]
    handovers: tuple[str, ...]
