"""The form of a dialect's file: how attributes become columns, and operations events."""

from __future__ import annotations

from typing import Literal

import msgspec

Names = tuple[str, ...]


class Gathered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All attributes under a prefix."""

    prefix: str
    skip: Names = msgspec.field(name="except", default=())


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text out of a list of messages."""

    attribute: str
    role: str
    part: str
    take: Literal["first", "last"]
    first: str | None = msgspec.field(name="from", default=None)


class EventRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event that a span becomes, and the columns it carries."""

    type: str
    at: Literal["start", "end"]
    columns: Names


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What spans of these operations become."""

    names: Names
    events: tuple[EventRule, ...]
    delegates: bool = False


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dialect's file."""

    name: str
    version: int
    absent: Names
    service: Names
    agent: Names
    separator: str
    agent_like: Names
    operation: Names
    inherited: dict[str, Names]
    shared: dict[str, Names]
    columns: dict[str, Names]
    gathered: dict[str, Gathered]
    messages: dict[str, tuple[Text, ...]]
    outcomes: dict[str, Names]
    operations: tuple[Operation, ...]
