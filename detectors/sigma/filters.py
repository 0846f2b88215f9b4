"""Sigma's filter documents: what a site excludes from rules it did not write.

A filter's condition is joined to the condition of each rule it names, or of every rule whose log
source it covers (``rules: any``), by ``and``. Source: Sigma specification 2.1.0, filters.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

from sigma.filters import SigmaFilter
from sigma.rule import SigmaRule

from detectors.sigma.documents import Document
from detectors.sigma.expand import Expansion
from detectors.sigma.parse import POLICY
from detectors.sigma.refusal import RefusedError


@dataclass(frozen=True)
class Filter:
    """A filter as it is applied. ``missing`` are its lists without a value; it is dormant then."""

    document: Document
    sigma: SigmaFilter
    named: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def targets(self) -> tuple[str, ...] | None:
        """Ids or names of the rules it is for; None for any that its log source covers."""
        rules = self.sigma.filter.rules
        return None if isinstance(rules, str) else tuple(one.reference for one in rules)

    def concerns(self, rule: SigmaRule) -> bool:
        """Whether it changes this rule. Raises RefusedError where it names the rule and cannot."""
        named = self.targets is not None and bool({str(rule.id), rule.name} & {*self.targets})
        covered = rule.logsource in self.sigma.logsource
        if named and not covered:
            raise RefusedError(
                f"the filter {self.document.name} names this rule, but its logsource does not cover the "
                "rule's: take from the filter's logsource what the rule's does not say"
            )
        return covered and (named or self.targets is None)


def read_filter(document: Document, lists: Expansion) -> Filter:
    """The filter of a document. Raises RefusedError or an error of pySigma."""
    content = dict(document.content)
    if isinstance(content.get("filter"), dict):
        content["filter"] = lists.detection(content["filter"])
    missing = tuple(lists.missing)
    if missing:
        content["filter"] = {**_EMPTY, "rules": content["filter"].get("rules")}
    sigma = SigmaFilter.from_dict(content, policy=POLICY)
    return Filter(document, sigma, tuple(lists.named), missing)


_EMPTY = {"nothing": {"event_id": ""}, "condition": "not nothing"}


def apply(filters: Iterable[Filter], rule: SigmaRule) -> list[Filter]:
    """Join every filter that concerns the rule to its condition, in order; which those were."""
    applied = [one for one in filters if not one.missing and one.concerns(rule)]
    for one in applied:
        copy.deepcopy(one.sigma).apply_on_rule(rule)
    return applied
