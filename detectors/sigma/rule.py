"""Rules as Watchkeeper holds them: what `load_rules` returns and every other module reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detectors.base import Fields
from detectors.sigma.tree import Column, Node

MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Reference:
    """A rule that a correlation counts, with the columns that make up its group and its value.

    ``group`` has one entry for each group-by field: the columns to try, best first. One more,
    the agent, may follow: a group that holds a session or a call is held to one agent.
    """

    rule: str
    group: tuple[tuple[Column, ...], ...]
    value: tuple[Column, ...] = ()


@dataclass(frozen=True)
class Correlation:
    """A Sigma correlation: ``kind`` over hits of ``references`` within a sliding ``span``.

    ``span`` is in microseconds; ``threshold`` is the smallest count that fires;
    ``group_by`` names the fields as the rule does; ``generate`` lets the rules that it
    counts report on their own, too.
    """

    kind: str
    references: tuple[Reference, ...]
    group_by: tuple[str, ...]
    span: int
    threshold: int
    value_field: str | None = None
    generate: bool = False


@dataclass(frozen=True)
class Absence:
    """One way in which a rule's event may have been preceded (extension ``not_preceded_by``)."""

    reference: Reference
    group_by: tuple[str, ...]
    span: int


@dataclass(frozen=True)
class Rule:
    """One Sigma rule, checked and compiled to a tree.

    Exactly one of ``tree`` and ``correlation`` is set; ``absences`` only goes with
    ``tree``. ``generate`` is False for a rule that only feeds others. ``key`` is its
    name, else its id; references use either, and a rule without an id has ``name:`` and
    its name for one. ``version`` hashes its text together with that of the rules it
    refers to. ``response`` is None or
    ``{"action": "stop", "scope": "session" or "agent"}``. ``text`` is its YAML.
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

    @property
    def used(self) -> tuple[str, ...]:
        """Names or ids of the rules that this one refers to."""
        if self.correlation is not None:
            return tuple(reference.rule for reference in self.correlation.references)
        return tuple(absence.reference.rule for absence in self.absences)


@dataclass(frozen=True)
class RuleSet:
    """All rules in force. ``hash`` changes with any of them; ``attribute_keys`` are the keys
    of ``attributes`` that rules name, each read from frame column ``attributes.<key>``.
    """

    rules: tuple[Rule, ...]
    hash: str
    attribute_keys: tuple[str, ...]
    fields: Fields = field(compare=False)

    def get(self, name: str) -> Rule | None:
        """The rule with this id or name, or None."""
        return next((rule for rule in self.rules if name in (rule.id, rule.key)), None)

    def alone(self, rule: Rule) -> RuleSet:
        """The rule with the rules it refers to, and theirs, as a set of its own."""
        wanted = {rule.id}
        while True:
            rules = tuple(other for other in self.rules if wanted & {other.id, other.key})
            more = wanted.union(*(other.used for other in rules))
            if more == wanted:
                break
            wanted = more
        return RuleSet(rules, f"{self.hash}:{rule.id}", self.attribute_keys, self.fields)


class RuleError(ValueError):
    """Rules that cannot be used. ``faults`` lists each as (file, reason), all at once."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        self.faults = faults
        super().__init__("\n".join(f"{path}: {reason}" for path, reason in faults))
