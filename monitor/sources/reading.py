"""Sources of a dialect's file as functions: compiled once, asked for every span."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from monitor.sources.mapping import Condition, Gathered, Source, Text
from monitor.sources.otlp import Span

Line = Sequence[Span]
"""A span and its ancestors, nearest first, as far as the same request holds them."""

Reader = Callable[[Line], Any]
"""What a source says of the first span of a line; None where it says nothing."""

MAX_GATHERED = 2_000
"""Flattened attributes that are put together; what is beyond stays as it is."""

MAX_SEARCHED = 4096
"""Characters of a value in which a pattern is looked for: thousands may look into one ancestor's."""

MAX_PARTS = 16
"""Parts of a flattened name; what is beyond stays one."""

MAX_DIGITS = 6
"""A longer number in a flattened name is no place in a list."""


def decoded(value: Any) -> Any:
    """What JSON text says; anything else as it is, None where it is not JSON."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return None


def text(value: Any) -> str:
    """A value as text: JSON, unless it is text already."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def reader(source: str | Source, absent: frozenset[str]) -> Reader:
    """The function for a source; ``absent`` are values that say nothing."""
    if isinstance(source, str):
        return _attribute(source, absent)
    steps = [_raw(source, absent), *_steps(source)]

    def look(line: Line) -> Any:
        value: Any = line
        for step in steps:
            value = step(value)
            if value is None or (value.__class__ is str and value in absent):
                return None
        return value

    return look


def _attribute(name: str, absent: frozenset[str]) -> Reader:
    def look(line: Line) -> Any:
        value = line[0].attributes.get(name)
        return None if value.__class__ is str and value in absent else value

    return look


def first(values: Iterable[Any]) -> Any:
    """The first value that is not None."""
    return next((value for value in values if value is not None), None)


def _raw(source: Source, absent: frozenset[str]) -> Reader:
    if source.event is not None:
        event, name = source.event, source.attribute or ""
        return lambda line: first(
            one.attributes.get(name) for one in reversed(line[0].events) if one.name == event
        )
    if source.attribute is not None:
        return _attribute(source.attribute, absent)
    if source.events:
        return _listed(frozenset(source.events))
    if source.field is not None:
        return _FIELDS[source.field]
    return lambda _line: source.value


def _listed(names: frozenset[str]) -> Reader:
    def look(line: Line) -> Any:
        found = [{"event": one.name, **one.attributes} for one in line[0].events if one.name in names]
        return text(found) if found else None

    return look


def _exception(name: str) -> Reader:
    return lambda line: first(one.attributes.get(name) for one in line[0].events if one.name == "exception")


_FIELDS: dict[str, Reader] = {
    "name": lambda line: line[0].name,
    "status": lambda line: ("UNSET", "OK", "ERROR")[line[0].status] if line[0].status in (0, 1, 2) else None,
    "status_message": lambda line: line[0].status_message,
    "exception_type": _exception("exception.type"),
    "exception_message": _exception("exception.message"),
}


def _steps(source: Source) -> Iterable[Callable[[Any], Any]]:
    if source.path:
        yield lambda value: _at(decoded(value), source.path)
    if source.pattern is not None:
        pattern = re.compile(source.pattern)
        yield lambda value: _found(pattern, value)
    if source.values is not None:
        known = source.values
        yield lambda value: known.get(value) if isinstance(value, str) else None
    if source.value is not None:
        yield lambda _value: source.value


def _at(value: Any, path: Iterable[str | int]) -> Any:
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else None
        if value is None:
            return None
    return value


def _found(pattern: re.Pattern[str], value: Any) -> str | None:
    match = pattern.search(value, 0, MAX_SEARCHED) if isinstance(value, str) else None
    return None if match is None else match[1] if pattern.groups else match[0]


def holds(condition: Condition) -> Callable[[Line], bool]:
    """The function for a condition: what stands there counts, also where it says nothing.

    A tool that returns "None" has returned: only what a column holds leaves out such values.
    """
    source, exists, equals = condition.that, condition.exists, condition.equals
    look = reader(source, frozenset())
    if equals is not None:
        return lambda line: ((value := look(line)) is not None and text(value) == equals) is exists
    if isinstance(source, str):
        return lambda line: (source in line[0].attributes) is exists
    return lambda line: (look(line) is not None) is exists


def gather(gathered: Gathered, attributes: dict[str, Any]) -> tuple[set[str], str | None]:
    """The attributes that are gathered, and their JSON text."""
    taken = [name for name in attributes if name.startswith(gathered.prefix) and name not in gathered.skip]
    taken = taken[:MAX_GATHERED]
    if not taken:
        return set(), None
    if gathered.nested:
        return set(taken), text(_nested({n.removeprefix(gathered.prefix): attributes[n] for n in taken}))
    return set(taken), text({name.removeprefix(gathered.prefix): attributes[name] for name in taken})


def _nested(flat: dict[str, Any]) -> Any:
    """``0.message.role`` and the like as lists and objects; numbered parts become lists."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *above, last = name.split(".", MAX_PARTS)
        branch = tree
        for step in above:
            inner = branch.setdefault(step, {})
            if not isinstance(inner, dict):
                inner = branch[step] = {"": inner}
            branch = inner
        branch[last] = value
    return _lists(tree)


def _lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree and all(name.isascii() and name.isdigit() and len(name) <= MAX_DIGITS for name in tree):
        return [_lists(tree[name]) for name in sorted(tree, key=int)]
    return {name: _lists(inner) for name, inner in tree.items()}


def spoken(asked: Text, attributes: dict[str, Any]) -> str | None:
    """The text that is asked for, out of a list of messages."""
    messages = decoded(attributes.get(asked.attribute))
    if not isinstance(messages, list):
        return None
    begin = attributes.get(asked.first) if asked.first else None
    texts = [
        content
        for message in messages[begin if isinstance(begin, int) else 0 :]
        if isinstance(message, dict) and message.get("role") == asked.role
        for content in _contents(message, asked.part)
    ]
    return texts[0 if asked.take == "first" else -1] if texts else None


def _contents(message: dict[str, Any], part_type: str) -> Iterable[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    parts = message.get("parts")
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("type") == part_type and isinstance(part.get("content"), str):
            yield part["content"]
