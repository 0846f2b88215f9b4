"""The shipped taxonomies, and what they say about a rule's tags.

The data are the YAML files in ``taxonomies/``, each with its source, version and date.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "taxonomies"

OTHER_NAMESPACES = ("cve", "detection", "car", "d3fend", "stp", "tlp")
"""Namespaces of the Sigma specification (appendix tags) that no shipped taxonomy covers."""


@dataclass(frozen=True)
class Entry:
    """A risk or a technique: its name, and the tactics that it belongs to."""

    name: str
    tactics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taxonomy:
    """One taxonomy. A tag is ``namespace``, a dot, ``prefix`` and the id of an entry or a tactic.

    ``complete`` says whether an id that is not among ``entries`` is wrong; ``pattern`` is the form
    of an id, in words ``form``; ``retired`` names what took the place of an id.
    """

    title: str
    version: str
    date: str
    source: str
    namespace: str
    complete: bool
    prefix: str = ""
    pattern: str = ".*"
    form: str = ""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    tactics: Mapping[str, str] = field(default_factory=dict)
    retired: Mapping[str, str] = field(default_factory=dict)

    def tag(self, name: str) -> str:
        """The tag of an id."""
        return f"{self.namespace}.{self.prefix}{name}"

    def id_of(self, tag: str) -> str | None:
        """The id in a tag of this taxonomy, None for other tags."""
        start = f"{self.namespace}.{self.prefix}"
        return tag.removeprefix(start) if tag.startswith(start) else None


@cache
def taxonomies() -> tuple[Taxonomy, ...]:
    """All shipped taxonomies."""
    return tuple(_read(path) for path in sorted(FOLDER.glob("*.yml")))


def taxonomy(namespace: str) -> Taxonomy:
    """The taxonomy of this namespace. Raises StopIteration where none is shipped."""
    return next(one for one in taxonomies() if one.namespace == namespace)


def fault_of(tag: str) -> str | None:
    """What is wrong with a tag, None where nothing is known to be."""
    given = tag.casefold()
    namespace = given.split(".", 1)[0]
    if namespace in OTHER_NAMESPACES:
        return None
    known = {one.namespace: one for one in taxonomies()}
    if namespace not in known:
        return f"no shipped taxonomy has the namespace {namespace!r}{_meant(namespace, known)}"
    found = known[namespace]
    called = f"{found.title} {found.version}"
    name = found.id_of(given)
    if name is None:
        return f"not of the edition that is shipped, {called}{_meant(given, _tags(found))}"
    if name in found.entries or name in found.tactics:
        return None
    if name in found.retired:
        return f"retired: {found.title} has {found.tag(found.retired[name])} instead"
    if re.fullmatch(found.pattern, name) is None or found.complete:
        rule = f": the form is {found.form}" if found.form else ""
        return f"not a tag of {called}{rule}{_meant(given, _tags(found))}"
    if not found.entries:
        return None
    return f"not in the shipped list of {called}: check it at {found.source}"


def _tags(found: Taxonomy) -> list[str]:
    return [found.tag(name) for name in (*found.entries, *found.tactics)]


def _meant(given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(known), 1, 0.75)
    return f"; did you mean {near[0]}?" if near else ""


def _read(path: Path) -> Taxonomy:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    entries = {name: _entry(given) for name, given in content.pop("entries").items()}
    for name, entry in entries.items():
        parent = entries.get(name.rpartition(".")[0])
        if parent is not None and not entry.tactics:
            entries[name] = Entry(f"{parent.name}: {entry.name}", parent.tactics)
    return Taxonomy(**content | {"entries": entries, "date": str(content["date"])})


def _entry(given: Any) -> Entry:
    return Entry(given["name"], tuple(given["tactics"])) if isinstance(given, dict) else Entry(given)
