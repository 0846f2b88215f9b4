"""Reads rule files: YAML documents through pySigma to `RuleSet`, all or nothing.

Every fault of every file is found before anything is refused, so that a detection
engineer fixes them in one go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sigma.correlations import SigmaCorrelationRule
from sigma.rule import SigmaRule

from detectors.base import LEVELS, Fields
from detectors.sigma.digest import digest
from detectors.sigma.documents import Document, Fault, check_keys, check_lists, parse, read
from detectors.sigma.expand import Expansion, Lists
from detectors.sigma.extension import Extension, extension
from detectors.sigma.filters import Filter, apply, read_filter
from detectors.sigma.linking import link
from detectors.sigma.mapping import UNUSABLE, mapped, read_pipelines
from detectors.sigma.mapping import Mapping as FieldMapping
from detectors.sigma.parse import POLICY, Parser
from detectors.sigma.refusal import RefusedError
from detectors.sigma.relations import correlation, pins_agent
from detectors.sigma.rule import Correlation, Rule, RuleError, RuleSet
from detectors.sigma.site import Site
from detectors.sigma.tree import NEVER, Node

MALFORMED = (ValueError, TypeError, AttributeError, KeyError)
"""pySigma answers some malformed rules with Python's own errors."""


def load_rules(
    paths: Sequence[Path], fields: Fields, lists: Lists | None = None, pipelines: Sequence[Path] = ()
) -> RuleSet:
    """All rules of the files, and of the ``*.yml`` below the folders, in ``paths``.

    ``lists`` are the site's, by name; they go before those that the files bring. ``pipelines`` are
    files that map foreign field names (pySigma's processing pipelines). Raises RuleError with every
    fault found; then no rule is in force.
    """
    faults: list[Fault] = []
    mapping = read_pipelines(pipelines, faults)
    return _loaded(read(paths, faults), Site(fields, lists or {}, mapping), faults)


def load_texts(
    texts: Iterable[tuple[str, str]],
    fields: Fields,
    lists: Lists | None = None,
    pipelines: Sequence[str] = (),
) -> RuleSet:
    """The same for what is at hand: the path and the text of each file, and the texts of pipelines."""
    faults: list[Fault] = []
    documents = [document for path, text in texts for document in parse(path, text, faults)]
    try:
        mapping = mapped(pipelines)
    except UNUSABLE as error:
        raise RuleError([("pipelines", f"not a usable pipeline: {_reason(error)}")]) from None
    return _loaded(documents, Site(fields, lists or {}, mapping), faults)


def relisted(rules: RuleSet, rule: Rule, lists: Lists) -> RuleSet:
    """The rule alone, with those that it refers to and its filters, as other lists make it."""
    site = dataclasses.replace(rules.site, lists={**rules.site.lists, **lists})
    return _loaded(rules.needed(rule), site, [])


def _loaded(documents: Sequence[Document], site: Site, faults: list[Fault]) -> RuleSet:
    shipped = _shipped(documents, faults)
    known: Lists = {**shipped, **site.lists}
    filters = _filters(documents, known, faults)
    rules: list[Rule] = []
    for document in documents:
        if document.kind in ("rule", "correlation"):
            try:
                rules.append(_rule(document, site, known, filters))
            except MALFORMED as error:
                faults.append((document.path, f"{document.name}: {_reason(error)}"))
    faults += _aimless(filters, rules)
    linked = link(rules, site, faults)
    if faults:
        raise RuleError(faults)
    return dataclasses.replace(linked, lists=known, documents=tuple(documents))


def _shipped(documents: Iterable[Document], faults: list[Fault]) -> dict[str, Sequence[Any]]:
    """The lists that the files bring."""
    shipped: dict[str, Sequence[Any]] = {}
    for document in documents:
        if document.kind != "lists":
            continue
        try:
            check_lists(document)
            if twice := shipped.keys() & document.content["lists"].keys():
                raise RefusedError(f"the list {min(twice)} is given twice: join them")
            shipped.update(document.content["lists"])
        except RefusedError as error:
            faults.append((document.path, str(error)))
    return shipped


def _filters(documents: Iterable[Document], lists: Lists, faults: list[Fault]) -> list[Filter]:
    filters = []
    for document in documents:
        if document.kind == "filter":
            try:
                check_keys(document)
                filters.append(read_filter(document, Expansion(lists)))
            except MALFORMED as error:
                faults.append((document.path, f"{document.name}: {_reason(error)}"))
    return filters


def _aimless(filters: Iterable[Filter], rules: Iterable[Rule]) -> list[Fault]:
    known = {name for rule in rules if rule.correlation is None for name in (rule.id, rule.key)}
    return [
        (one.document.path, f"{one.document.name}: no plain rule has the id or name {name!r}")
        for one in filters
        for name in one.targets or ()
        if name not in known
    ]


def _rule(document: Document, site: Site, lists: Lists, filters: Sequence[Filter]) -> Rule:
    check_keys(document)
    content = document.content
    expansion = Expansion(lists)
    extended = extension(content.get("watchkeeper", {}), Parser(site.fields))
    parser = Parser(site.fields, extended.every)
    tree: Node | None = None
    related = None
    applied: list[Filter] = []
    sigma: SigmaRule | SigmaCorrelationRule
    if document.kind == "correlation":
        sigma = SigmaCorrelationRule.from_dict(content)
        site.mapping.apply(sigma)
        related = correlation(sigma, parser)
    else:
        sigma, tree, applied = _plain(content, parser, expansion, filters, site.mapping)
    response = _response(content.get("response"))
    _check_together(extended, related, response)
    if sigma.id is None and sigma.name is None:
        raise RefusedError("it has neither id nor name: give it an id (a random UUID)")
    level = content.get("level")
    return Rule(
        id=str(sigma.id or f"name:{sigma.name}"),
        key=sigma.name or str(sigma.id),
        title=sigma.title,
        level=str(level) if level in LEVELS else "",
        version=digest(
            [content, [one.document.content for one in applied], _used(expansion, applied, lists)]
            + [site.mapping.version] * bool(site.mapping.version)
        ),
        path=document.path,
        text=document.text,
        description=(sigma.description or "").strip(),
        status=str(sigma.status or ""),
        tags=tuple(str(tag) for tag in sigma.tags),
        references=tuple(map(str, sigma.references)),
        falsepositives=tuple(map(str, sigma.falsepositives)),
        runbook=_runbook(content.get("runbook", [])),
        response=response,
        tests=_tests(content.get("tests", [])),
        tree=tree,
        correlation=related,
        absences=extended.absences,
        followers=extended.followers,
        first_seen=extended.first_seen,
        lists=tuple(expansion.named),
        missing=tuple(expansion.missing),
        filters=tuple(one.document.name for one in applied),
    )


def _plain(
    content: dict[str, Any],
    parser: Parser,
    lists: Expansion,
    filters: Sequence[Filter],
    mapping: FieldMapping,
) -> tuple[SigmaRule, Node, list[Filter]]:
    """A rule with a detection, its filters joined to it; one that lacks a list holds nowhere."""
    filled = {**content, "detection": lists.detection(content.get("detection"))}
    if lists.missing:
        filled["detection"] = {"nothing": {"event_id": ""}, "condition": "nothing"}
    sigma = SigmaRule.from_dict(filled, policy=POLICY)
    applied = apply(filters, sigma)
    mapping.apply(sigma)
    tree = parser.condition([condition.parsed for condition in sigma.detection.parsed_condition])
    return sigma, NEVER if lists.missing else tree, applied


def _used(lists: Expansion, filters: Iterable[Filter], known: Lists) -> dict[str, Any]:
    """The values of the lists that made the rule what it is."""
    names = {*lists.named, *(name for one in filters for name in one.named)}
    return {name: known.get(name) for name in sorted(names)}


def _check_together(
    extended: Extension, related: Correlation | None, response: Mapping[str, str] | None
) -> None:
    if related is None:
        if response is not None and extended.followers:
            raise RefusedError("response: an absence shows only later, and stops nobody: leave response out")
        return
    if extended.asked:
        raise RefusedError("watchkeeper: its keys belong to a rule with a detection, not to a correlation")
    if response is not None and not pins_agent(related.references):
        raise RefusedError(
            "response: its groups hold events of several agents, so one could have another stopped: "
            "add session_id or agent_id to group-by, or leave response out"
        )


def _runbook(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(step, str) for step in value):
        raise RefusedError("runbook: a list of steps, each one text (quote a step that has a colon)")
    return tuple(value)


def _response(value: Any) -> Mapping[str, str] | None:
    if value is None:
        return None
    allowed = ({"action": "stop", "scope": "session"}, {"action": "stop", "scope": "agent"})
    if value not in allowed:
        raise RefusedError("response: must be {action: stop, scope: session} or {action: stop, scope: agent}")
    return dict(value)


def _tests(value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list):
        raise RefusedError("tests: a list of {name, match, events}")
    for test in value:
        right = isinstance(test, dict) and {"name", "match", "events"} <= set(test)
        right = right and not set(test) - {"name", "match", "events", "lists"}
        right = right and isinstance(test["match"], bool | int) and isinstance(test["events"], list)
        if not right or not all(isinstance(event, dict) for event in test["events"]):
            raise RefusedError(
                "tests: each has a name, match (true, false or a number), a list of events, "
                "and lists where it needs them"
            )
    return tuple(value)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if any(mark in text for mark in ("(?=", "(?!", "(?<=", "(?<!")):
        return (
            f"{text[:300]} (look-around is not supported: write a second selection and join it "
            "with `and` or `and not`)"
        )
    return text if isinstance(error, ValueError) else f"not a valid Sigma rule: {text}"
