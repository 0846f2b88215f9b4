"""What Watchkeeper adds to Sigma below a rule's key ``watchkeeper``; see docs/rules.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sigma.correlations import SigmaCorrelationTimespan

from detectors.sigma.parse import Parser
from detectors.sigma.refusal import RefusedError
from detectors.sigma.relations import pinned, reference_to
from detectors.sigma.rule import MICROSECONDS, Absence, FirstSeen

KEYS = ("not_preceded_by", "not_followed_by", "first_seen", "every")
STATEFUL = KEYS[:3]


@dataclass(frozen=True)
class Extension:
    """The parsed key ``watchkeeper``; all empty where a rule has none."""

    absences: tuple[Absence, ...] = ()
    followers: tuple[Absence, ...] = ()
    first_seen: FirstSeen | None = None
    every: frozenset[str] = frozenset()

    @property
    def asked(self) -> bool:
        """Whether anything was asked for."""
        return self != Extension()


def extension(given: Any, parser: Parser) -> Extension:
    """The extension of a rule. Raises RefusedError, or pySigma's error for a timespan."""
    if not isinstance(given, dict) or set(given) - {*KEYS}:
        raise RefusedError(f"watchkeeper: holds only {', '.join(KEYS)}; see docs/rules.md")
    if len(set(STATEFUL) & given.keys()) > 1:
        raise RefusedError(f"watchkeeper: only one of {', '.join(STATEFUL)} in one rule: write two rules")
    first = given.get("first_seen")
    return Extension(
        _absences("not_preceded_by", given.get("not_preceded_by", []), parser),
        _absences("not_followed_by", given.get("not_followed_by", []), parser)[:1],
        None if first is None else _first_seen(first, parser),
        _every(given.get("every", []), parser),
    )


def _absences(key: str, value: Any, parser: Parser) -> tuple[Absence, ...]:
    """One mapping, or a list of them; only of ``not_preceded_by`` there may be several."""
    entries = value if isinstance(value, list) else [value]
    if key == "not_followed_by" and len(entries) > 1:
        raise RefusedError("watchkeeper.not_followed_by: one entry; write a rule for each")
    return tuple(_absence(key, entry, parser) for entry in entries)


def _absence(key: str, entry: Any, parser: Parser) -> Absence:
    if not isinstance(entry, dict) or set(entry) != {"rule", "timespan", "group-by"}:
        raise RefusedError(f"watchkeeper.{key}: each entry has rule, timespan and group-by")
    group_by = _names(f"watchkeeper.{key}: group-by", entry["group-by"])
    (reference,) = pinned((reference_to(str(entry["rule"]), group_by, parser),), parser)
    return Absence(reference, group_by, _span(entry["timespan"]))


def _first_seen(given: Any, parser: Parser) -> FirstSeen:
    if not isinstance(given, Mapping) or set(given) != {"fields", "group-by", "after"}:
        raise RefusedError("watchkeeper.first_seen: has fields, group-by and after")
    fields = _names("watchkeeper.first_seen: fields", given["fields"])
    group_by = _names("watchkeeper.first_seen: group-by", given["group-by"])
    (reference,) = pinned((reference_to("", group_by, parser, values=fields),), parser)
    return FirstSeen(reference, fields, group_by, _span(given["after"]))


def _every(given: Any, parser: Parser) -> frozenset[str]:
    names = _names("watchkeeper.every", given) if given else ()
    for name in names:
        for column in parser.columns(name):
            if column.kind != "list" and not column.attribute:
                raise RefusedError(f"watchkeeper.every: the field {name} holds no list")
    return frozenset(names)


def _names(where: str, given: Any) -> tuple[str, ...]:
    names = tuple(given) if isinstance(given, list) else (given,)
    if not names or not all(isinstance(name, str) for name in names):
        raise RefusedError(f"{where} is a list of field names")
    return names


def _span(given: Any) -> int:
    return SigmaCorrelationTimespan(given).seconds * MICROSECONDS
