"""Reads rule files: YAML documents through pySigma to `RuleSet`, all or nothing.

Every fault of every file is found before anything is refused, so that a detection
engineer fixes them in one go.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from sigma.correlations import SigmaCorrelationRule
from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule
from sigma.rule.base import SigmaYAMLLoader, check_alias_expansion

from detectors.base import LEVELS, Fields
from detectors.sigma.parse import ATTRIBUTE, POLICY, Parser, RefusedError
from detectors.sigma.relations import absences, correlation, pins_agent, related_columns
from detectors.sigma.rule import Rule, RuleError, RuleSet
from detectors.sigma.tree import Column, Node, columns

OWN_KEYS = ("tests", "runbook", "response", "watchkeeper")
"""What Watchkeeper adds to Sigma, each a top-level key of a rule; see docs/rules.md."""

SIGMA_KEYS = (
    *("title", "id", "name", "taxonomy", "related", "status", "description", "license", "references"),
    *("tags", "author", "date", "modified", "logsource", "detection", "correlation", "fields"),
    *("falsepositives", "level", "scope"),
)

MAX_FILE_BYTES = 1_000_000
_SEPARATOR = re.compile(r"^---(?:[ \t].*)?$", re.MULTILINE)

Document = dict[str, Any]


def load_rules(paths: Sequence[Path], fields: Fields) -> RuleSet:
    """All rules of the files, and of the ``*.yml`` below the folders, in ``paths``.

    Raises RuleError with every fault found; then no rule is in force.
    """
    faults: list[tuple[str, str]] = []
    rules: list[Rule] = []
    for path in _files(paths, faults):
        for text, document in _documents(path, faults):
            try:
                rules.append(_rule(path, text, document, Parser(fields)))
            # pySigma answers some malformed rules with Python's own errors.
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                name = document.get("title") or document.get("id") or "rule without a title"
                faults.append((str(path), f"{str(name)[:100]}: {_reason(error)}"))
    faults.extend(_clashes(rules))
    faults.extend(_dangling(rules))
    if faults:
        raise RuleError(faults)
    return _rule_set(rules, fields)


def _files(paths: Sequence[Path], faults: list[tuple[str, str]]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.rglob("*.yml"))
        elif path.is_file():
            yield path
        else:
            faults.append((str(path), "no such file or folder: correct the path of the rules"))


def _documents(path: Path, faults: list[tuple[str, str]]) -> Iterator[tuple[str, Document]]:
    """Each YAML document with its own text. ``---`` at a line's start always separates."""
    try:
        whole = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        faults.append((str(path), f"cannot be read as UTF-8 text: {error}"))
        return
    if len(whole) > MAX_FILE_BYTES:
        faults.append((str(path), f"larger than {MAX_FILE_BYTES} characters: split it"))
        return
    for text in _SEPARATOR.split(whole):
        try:
            # A safe loader that also refuses a key written twice.
            document = yaml.load(text, SigmaYAMLLoader)  # noqa: S506
            if document is None:
                continue
            if not isinstance(document, dict):
                raise RefusedError("a rule is a mapping of keys to values")
            check_alias_expansion(document)
        except (yaml.YAMLError, SigmaError, RefusedError) as error:
            faults.append((str(path), f"not valid YAML: {' '.join(str(error).split())[:300]}"))
        else:
            yield text.strip() + "\n", document


def _rule(path: Path, text: str, document: Document, parser: Parser) -> Rule:
    _check_keys(document)
    level = document.get("level")
    tree: Node | None = None
    related = None
    sigma: SigmaRule | SigmaCorrelationRule
    if "correlation" in document:
        sigma = SigmaCorrelationRule.from_dict(document)
        related = correlation(sigma, parser)
    else:
        sigma = SigmaRule.from_dict(document, policy=POLICY)
        tree = parser.condition([condition.parsed for condition in sigma.detection.parsed_condition])
    extension = _extension(document)
    if extension and related is not None:
        raise RefusedError(
            "watchkeeper.not_preceded_by belongs to a rule with a detection, not a correlation"
        )
    response = _response(document.get("response"))
    if response is not None and related is not None and not pins_agent(related.references):
        raise RefusedError(
            "response: its groups hold events of several agents, so one could have another stopped: "
            "add session_id or agent_id to group-by, or leave response out"
        )
    if sigma.id is None and sigma.name is None:
        raise RefusedError("it has neither id nor name: give it an id (a random UUID)")
    return Rule(
        id=str(sigma.id or f"name:{sigma.name}"),
        key=sigma.name or str(sigma.id),
        title=sigma.title,
        level=str(level) if level in LEVELS else "",
        version=_digest(document),
        path=str(path),
        text=text,
        description=(sigma.description or "").strip(),
        status=str(sigma.status or ""),
        tags=tuple(str(tag) for tag in sigma.tags),
        references=tuple(map(str, sigma.references)),
        falsepositives=tuple(map(str, sigma.falsepositives)),
        runbook=_runbook(document.get("runbook", [])),
        response=response,
        tests=_tests(document.get("tests", [])),
        tree=tree,
        correlation=related,
        absences=absences(extension, parser),
    )


def _check_keys(document: Document) -> None:
    if "action" in document or "filter" in document:
        raise RefusedError("collections (action:) and filters (filter:) are not supported: write it out")
    known = (*SIGMA_KEYS, *OWN_KEYS)
    for key in document:
        meant = [] if key in known else difflib.get_close_matches(str(key), known, 1, 0.8)
        if meant:
            raise RefusedError(f"unknown key {str(key)[:60]!r}: did you mean {meant[0]!r}?")


def _extension(document: Document) -> Any:
    extension = document.get("watchkeeper", {})
    if not isinstance(extension, dict) or set(extension) - {"not_preceded_by"}:
        raise RefusedError("watchkeeper: holds only not_preceded_by; see docs/rules.md")
    return extension.get("not_preceded_by", [])


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
        right = isinstance(test, dict) and set(test) == {"name", "match", "events"}
        right = right and isinstance(test["match"], bool | int) and isinstance(test["events"], list)
        if not right or not all(isinstance(event, dict) for event in test["events"]):
            raise RefusedError("tests: each has a name, match (true, false or a number) and a list of events")
    return tuple(value)


def _digest(document: object) -> str:
    """Hash of the rule as parsed, so that neither comments nor layout change a version."""
    plain = json.dumps(document, sort_keys=True, default=str)
    return hashlib.sha256(plain.encode()).hexdigest()[:12]


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if any(mark in text for mark in ("(?=", "(?!", "(?<=", "(?<!")):
        return (
            f"{text[:300]} (look-around is not supported: write a second selection and join it "
            "with `and` or `and not`)"
        )
    return text if isinstance(error, ValueError) else f"not a valid Sigma rule: {text}"


def _clashes(rules: Iterable[Rule]) -> Iterator[tuple[str, str]]:
    for attribute in ("id", "key"):
        counted = Counter(getattr(rule, attribute) for rule in rules)
        for rule in rules:
            value = getattr(rule, attribute)
            if counted[value] > 1 and (attribute == "id" or rule.key != rule.id):
                what = "id" if attribute == "id" else "name"
                yield rule.path, f"{rule.title}: another rule has the {what} {value}: give it one of its own"


def _by_name(rules: Iterable[Rule]) -> dict[str, Rule]:
    return {name: rule for rule in rules for name in (rule.id, rule.key)}


def _dangling(rules: Sequence[Rule]) -> Iterator[tuple[str, str]]:
    by_name = _by_name(rules)
    for rule in rules:
        for name in rule.used:
            base = by_name.get(name)
            if base is None:
                yield rule.path, f"{rule.title}: it refers to the rule {name!r}, which is not loaded"
            elif base.tree is None or (base.absences and rule.absences):
                yield (
                    rule.path,
                    f"{rule.title}: {name!r} is itself about several events; refer to plain rules",
                )
        if not rule.level and rule.key == rule.id:
            yield (
                rule.path,
                f"{rule.title}: it has neither a level ({', '.join(LEVELS)}) nor a name",
            )


def _rule_set(rules: Sequence[Rule], fields: Fields) -> RuleSet:
    """Decide which rules report on their own, and fold versions of bases into their users.

    A rule without a level is a building block and never reports, even under ``generate``.
    """
    by_name = _by_name(rules)
    fed = {by_name[name].id for rule in rules for name in rule.used}
    loud = {
        by_name[name].id
        for rule in rules
        if rule.correlation is not None and rule.correlation.generate
        for name in rule.used
    }
    done = [
        dataclasses.replace(
            rule,
            version=_version(rule, by_name),
            level=rule.level or "informational",
            generate=bool(rule.level) and (rule.id not in fed or rule.id in loud),
        )
        for rule in rules
    ]
    ordered = tuple(sorted(done, key=lambda rule: (rule.path, rule.key)))
    named = {column.name for rule in ordered for column in _columns(rule)}
    keys = tuple(sorted(name.removeprefix(ATTRIBUTE) for name in named if name.startswith(ATTRIBUTE)))
    return RuleSet(ordered, _digest([(rule.id, rule.version) for rule in ordered]), keys, fields)


def _version(rule: Rule, by_name: Mapping[str, Rule]) -> str:
    return _digest([rule.version, *(_version(by_name[name], by_name) for name in rule.used)])


def _columns(rule: Rule) -> Iterator[Column]:
    if rule.tree is not None:
        yield from columns(rule.tree)
    yield from related_columns(rule)
