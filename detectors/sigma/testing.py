"""Runs the tests that rules carry: events in the rule's own file, with the expected verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl

from detectors.base import Batch, Finding
from detectors.sigma.detector import SigmaDetector
from detectors.sigma.load import relisted
from detectors.sigma.rule import Rule, RuleSet

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)

ToFrame = Callable[[RuleSet, Sequence[Mapping[str, Any]]], pl.DataFrame]
"""Events as wire dictionaries, complete and checked, to the frame that these rules read, with a
column for each of ``RuleSet.attribute_keys``."""


@dataclass(frozen=True)
class TestResult:
    """One test of one rule: how many findings it expected (``True`` for at least one) and made."""

    __test__ = False

    rule_id: str
    title: str
    path: str
    name: str
    expected: bool | int
    found: int
    passed: bool


def run_tests(rules: RuleSet, to_frame: ToFrame) -> list[TestResult]:
    """Every test of every rule, each with a fresh detector that holds this rule and its bases."""
    return [run_test(rules, rule, test, to_frame) for rule in rules.rules for test in rule.tests]


def run_test(rules: RuleSet, rule: Rule, test: Mapping[str, Any], to_frame: ToFrame) -> TestResult:
    """One test of one rule."""
    alone = relisted(rules, rule, test["lists"]) if "lists" in test else rules.alone(rule)
    events = test_events(test["events"], rules)
    found = sum(finding.rule_id == rule.id for finding in judged(alone, events, to_frame))
    expected = test["match"]
    passed = bool(found) == expected if isinstance(expected, bool) else found == expected
    return TestResult(rule.id, rule.title, rule.path, str(test["name"]), expected, found, passed)


def judged(rules: RuleSet, events: Sequence[Mapping[str, Any]], to_frame: ToFrame) -> list[Finding]:
    """The findings on whole events, and what shows once nothing comes for longer than a rule waits."""
    if not events:
        return []
    detector = SigmaDetector(rules)
    frame = to_frame(rules, events)
    found = detector.process(Batch(frame))
    last = frame.get_column("timestamp").to_physical().max()
    assert isinstance(last, int)
    return [*found, *detector.tick(last), *detector.tick(last + detector.patience)]


def test_events(partial: Sequence[Mapping[str, Any]], rules: RuleSet) -> list[dict[str, Any]]:
    """Partial events made whole: an id, an agent and a session where they have none, and a time.

    The time is ``timestamp``, or ``at`` seconds after the first event, or a second after the
    event before. Keys that are no column go to ``attributes``, as they do at the gate. An event
    with ``repeat: {count, every}`` stands for so many, ``every`` (1) seconds apart.
    """
    events = []
    moment = START
    for number, (given, gap) in enumerate(_repeated(partial)):
        event = {key: value for key, value in given.items() if key in rules.fields.columns}
        extra = {key: _text(value) for key, value in given.items() if key not in event and key != "at"}
        if extra:
            event["attributes"] = {**extra, **event.get("attributes", {})}
        if "timestamp" in event:
            moment = _moment(event["timestamp"])
        elif "at" in given:
            moment = START + timedelta(seconds=given["at"])
        elif number:
            moment += timedelta(seconds=gap)
        defaults = {"event_id": f"test-{number}", "agent_id": "test-agent", "tenant": "default"}
        defaults |= {"session_id": "test-session", "identity": "declared"}
        events.append({**defaults, **event, "timestamp": moment})
    return events


def _repeated(partial: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Each event, and the seconds since the one before it."""
    for given in partial:
        event = {key: value for key, value in given.items() if key != "repeat"}
        yield event, 1
        repeat = given.get("repeat", {})
        again = {key: value for key, value in event.items() if key not in ("at", "timestamp")}
        yield from [(again, repeat.get("every", 1))] * (repeat.get("count", 1) - 1)


test_events.__test__ = False  # type: ignore[attr-defined]


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _moment(value: object) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
