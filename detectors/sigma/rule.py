"""Rules as Watchkeeper holds them: what `load_rules` returns and every other module reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detectors.base import Fields
from detectors.sigma.documents import Document
from detectors.sigma.expand import Lists
from detectors.sigma.site import Site
from detectors.sigma.tree import Column, Node

MICROSECONDS = 1_000_000


Choice = tuple[Column, ...]
"""A field by its alternatives: the first column that says something counts."""


@dataclass(frozen=True)
class Reference:
    """A rule that another one refers to, with the columns that make up its group and its value.

    ``group`` has one entry for each group-by field: the columns to try, best first. One more,
    the agent, may follow: a group that holds a session or a call is held to one agent.
    ``names`` are the group-by fields as this rule calls them, aliases resolved.
    """

    rule: str
    group: tuple[Choice, ...]
    values: tuple[Choice, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Correlation:
    """A Sigma correlation: ``kind`` over hits of ``references`` within a sliding ``span``.

    ``span`` is in microseconds; ``op`` and ``threshold`` say when a number fires (a count always by
    ``gte``); ``alternatives`` are, for a temporal one, the sets of references (by place) of which
    one must be complete; ``group_by`` names the fields as the rule does; ``generate`` lets the
    rules that it counts report on their own, too.
    """

    kind: str
    references: tuple[Reference, ...]
    group_by: tuple[str, ...]
    span: int
    threshold: float
    op: str = "gte"
    percentile: int | None = None
    alternatives: tuple[frozenset[int], ...] = ()
    value_field: str | None = None
    generate: bool = False


@dataclass(frozen=True)
class Absence:
    """An event that should have come before, or after (``not_preceded_by``, ``not_followed_by``)."""

    reference: Reference
    group_by: tuple[str, ...]
    span: int


@dataclass(frozen=True)
class FirstSeen:
    """What must be new (extension ``first_seen``): the values of ``fields`` within a group.

    A group is judged once it has been known for ``after`` microseconds.
    """

    reference: Reference
    fields: tuple[str, ...]
    group_by: tuple[str, ...]
    after: int


@dataclass(frozen=True)
class Rule:
    """One Sigma rule, checked and compiled to a tree.

    Exactly one of ``tree`` and ``correlation`` is set; ``absences``, ``followers`` and
    ``first_seen`` only go with ``tree``, and at most one of them. ``generate`` is False for a
    rule that only feeds others. ``key`` is its name, else its id; references use either, and a
    rule without an id has ``name:`` and its name for one. ``version`` hashes its text together
    with that of the rules it refers to, of its filters, and the values of its lists.
    ``response`` is None or ``{"action": "stop", "scope": "session" or "agent"}``. ``text`` is
    its YAML. ``lists`` are the lists it names; ``missing`` those, its own or of rules it refers
    to, that have no value: it is dormant then. ``filters`` are the titles of those applied.
    """

    id: str
    key: str
    title: str
    level: str
    version: str
    path: str
    text: str
    description: str = ""
    status: str = ""
    tags: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    falsepositives: tuple[str, ...] = ()
    runbook: tuple[str, ...] = ()
    response: Mapping[str, str] | None = None
    tests: tuple[Mapping[str, Any], ...] = ()
    generate: bool = True
    tree: Node | None = None
    correlation: Correlation | None = None
    absences: tuple[Absence, ...] = ()
    followers: tuple[Absence, ...] = ()
    first_seen: FirstSeen | None = None
    lists: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()

    @property
    def extended(self) -> bool:
        """Whether it keeps state beyond its own event."""
        return bool(self.absences or self.followers or self.first_seen)

    @property
    def used(self) -> tuple[str, ...]:
        """Names or ids of the rules that this one refers to."""
        if self.correlation is not None:
            return tuple(reference.rule for reference in self.correlation.references)
        return tuple(absence.reference.rule for absence in (*self.absences, *self.followers))


@dataclass(frozen=True)
class RuleSet:
    """All rules in force. ``hash`` changes with any of them; ``attribute_keys`` are the keys
    of ``attributes`` that rules name, each read from frame column ``attributes.<key>`` (``*`` for
    all values). ``lists`` are those of the files with those of the site; ``documents`` what the files held.
    """

    rules: tuple[Rule, ...]
    hash: str
    attribute_keys: tuple[str, ...]
    site: Site = field(compare=False)
    lists: Lists = field(default_factory=dict, compare=False)
    documents: tuple[Document, ...] = field(default=(), compare=False)

    @property
    def fields(self) -> Fields:
        """The fields that its rules may name."""
        return self.site.fields

    def get(self, name: str) -> Rule | None:
        """The rule with this id or name, or None."""
        return next((rule for rule in self.rules if name in (rule.id, rule.key)), None)

    def needed(self, rule: Rule) -> list[Document]:
        """The documents that make this rule: its own, of the rules it refers to, its filters, the lists."""
        wanted = self.alone(rule).rules
        texts = {one.text for one in wanted}
        filters = {name for one in wanted for name in one.filters}
        return [
            one
            for one in self.documents
            if one.text in texts or one.kind == "lists" or (one.kind == "filter" and one.name in filters)
        ]

    def alone(self, rule: Rule) -> RuleSet:
        """The rule with the rules it refers to, and theirs, as a set of its own."""
        wanted = {rule.id}
        while True:
            rules = tuple(other for other in self.rules if wanted & {other.id, other.key})
            more = wanted.union(*(other.used for other in rules))
            if more == wanted:
                break
            wanted = more
        return dataclasses.replace(self, rules=rules, hash=f"{self.hash}:{rule.id}")


class RuleError(ValueError):
    """Rules that cannot be used. ``faults`` lists each as (file, reason), all at once."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        self.faults = faults
        super().__init__("\n".join(f"{path}: {reason}" for path, reason in faults))
