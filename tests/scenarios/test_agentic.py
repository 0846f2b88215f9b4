"""The shipped rules against stories of the OWASP Top 10 for Agentic Applications.

The stories were written before anybody told their author the rules: see ``agentic/README.md``.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from functools import cache
from typing import Any

import polars as pl
import pytest

from detectors.base import Batch, Finding
from detectors.sessions import MINUTE, event_time
from detectors.sigma import RuleSet, SigmaDetector
from monitor.events import arrow_batch
from monitor.frames import to_frame
from monitor.rulebook import load as load_rulebook
from monitor.scan import SCANNER
from monitor.settings import Settings
from monitor.sources.gate import Gate
from tests.scenarios.agentic import START, Scenario, load

LEVELS = ("informational", "low", "medium", "high", "critical")

CAUGHT_FLOOR = 0.90
"""The share of attacks that get a finding of level medium or above."""

AFTERWARDS = 120
"""Minutes of ticks after the last event, in which silence may show."""

SCENARIOS = load()


@cache
def _rules() -> RuleSet:
    return load_rulebook(Settings())


def _gated(scenario: Scenario) -> list[Any]:
    """The events as the daemon's gate lets them through, arrived when they happened."""
    arrival = START
    gate = Gate(Settings().edge, now=lambda: arrival)
    records: list[Any] = []
    for event in scenario.events:
        arrival = datetime.fromisoformat(event["timestamp"])
        records.append(gate.check(json.dumps(event, ensure_ascii=False).encode(), SCANNER))
    return records


@cache
def findings(scenario_name: str) -> tuple[Finding, ...]:
    """All that the shipped rules find in one scenario, with a detector of its own."""
    scenario = next(one for one in SCENARIOS if one.name == scenario_name)
    rules = _rules()
    detector = SigmaDetector(rules)
    frame = to_frame(arrow_batch(_gated(scenario)), rules.attribute_keys)
    found = list(detector.process(Batch(frame)))
    times = frame.select("timestamp", "ingested_at").cast(pl.Int64).iter_rows()
    last = max(event_time(*pair) for pair in times)
    for minute in range(AFTERWARDS + 1):
        found.extend(detector.tick(last + minute * MINUTE))
    return tuple(found)


def _fired(scenario: Scenario, floor: str) -> list[str]:
    """``level title`` of what fired at the level or above, once each."""
    least = LEVELS.index(floor)
    fired = {(f.level, f.title) for f in findings(scenario.name) if LEVELS.index(f.level) >= least}
    return [f"{level}: {title}" for level, title in sorted(fired)]


def _told(scenarios: list[Scenario], floor: str) -> str:
    return "\n".join(
        f"  {one.asi} {one.name}: {'; '.join(_fired(one, floor)) or 'nothing'}" for one in scenarios
    )


def test_each_risk_has_four_attacks_and_four_look_alikes() -> None:
    counts = Counter((one.asi, one.kind) for one in SCENARIOS)
    risks = [f"asi{number:02}" for number in range(1, 11)]
    thin = [(asi, kind) for asi in risks for kind in ("attack", "look-alike") if counts[asi, kind] < 4]
    assert not thin
    assert {one.asi for one in SCENARIOS} == set(risks)


def test_names_and_event_ids_are_told_apart() -> None:
    names = Counter(one.name for one in SCENARIOS)
    ids = Counter(event["event_id"] for one in SCENARIOS for event in one.events)
    assert [name for name, count in (names + ids).items() if count > 1] == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: f"{one.asi} {one.name}")
def test_the_gate_takes_every_event_as_it_was_written(scenario: Scenario) -> None:
    for sent, record in zip(scenario.events, _gated(scenario), strict=True):
        for column, value in sent.items():
            kept = getattr(record, column)
            if column in ("timestamp", "approval_expires_at"):
                assert kept == datetime.fromisoformat(value)
            else:
                assert kept == value, column
        assert record.timestamp >= START
        assert set(record.attributes or {}) == set(sent.get("attributes", {})), "a mark of the gate"


def test_nine_attacks_of_ten_are_found_at_medium_or_above() -> None:
    attacks = [one for one in SCENARIOS if one.kind == "attack"]
    missed = [one for one in attacks if not _fired(one, "medium")]
    share = 1 - len(missed) / len(attacks)
    told = f"{len(attacks) - len(missed)} of {len(attacks)} attacks found; missed, with what fired below:\n"
    assert share >= CAUGHT_FLOOR, told + _told(missed, "informational")


def test_no_look_alike_is_found_at_high_or_above() -> None:
    alike = [one for one in SCENARIOS if one.kind == "look-alike"]
    alerted = [one for one in alike if _fired(one, "high")]
    told = f"{len(alerted)} of {len(alike)} look-alikes alerted:\n"
    assert not alerted, told + _told(alerted, "high")
