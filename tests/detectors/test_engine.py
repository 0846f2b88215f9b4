from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from detectors.base import Batch, Finding
from detectors.calibration import Budget
from detectors.engine import MAX_PROFILES, Engine
from detectors.policy_blocks import PolicyBlocks
from detectors.registry import LEARNERS, learners
from detectors.session_outlier import FIGURES, fitted
from detectors.sigma import SigmaDetector, load_rules
from detectors.tool_sequence import ToolSequence
from monitor.events import rule_fields
from tests.builders import event, frame
from tests.detectors.sigma.sigma_rules import correlation, detection, rules
from tests.detectors.streams import in_order, mixed, session, sessions

RULE = """\
title: A secret was read
id: 6b1f0c52-aaaa-4000-8000-000000000001
description: An agent read a secret.
logsource: {{product: ai_agent}}
detection:
  s:
    tool_name: read_secret
  condition: s
level: {level}
"""

GENEROUS = 150.0
STREAM = mixed()


def sigma(folder: Path, level: str) -> SigmaDetector:
    file = folder / "rule.yml"
    file.write_text(RULE.format(level=level))
    return SigmaDetector(load_rules([file], rule_fields()))


def judged_in_pieces(engine: Engine, size: int) -> list[Any]:
    """Findings without their place in the batch."""
    found = []
    for first in range(0, STREAM.height, size):
        found += engine.process(STREAM[first : first + size])
    return [msgspec.structs.replace(one, row=0) for one in found]


@pytest.mark.parametrize("size", [1, 77, 1_000])
def test_all_detectors_together_find_the_same_however_the_stream_is_cut(tmp_path: Path, size: int) -> None:
    whole = judged_in_pieces(Engine(sigma(tmp_path, "high"), learners(GENEROUS)), STREAM.height)
    cut = judged_in_pieces(Engine(sigma(tmp_path, "high"), learners(GENEROUS)), size)
    assert cut == whole
    learned = {"provenance", "tool_sequence", "policy_blocks", "drift"}
    assert {one.detector for one in whole} == {"sigma", *learned}


def test_findings_come_by_row_then_detector(tmp_path: Path) -> None:
    found = Engine(sigma(tmp_path, "high"), learners(GENEROUS)).process(STREAM)
    places = [(one.row, one.detector, one.finding_id) for one in found]
    assert places == sorted(places)


@pytest.mark.parametrize(("level", "learned"), [("low", 1), ("medium", 0), ("critical", 0)])
def test_nothing_is_learned_from_a_session_in_which_a_rule_of_medium_or_above_fired(
    tmp_path: Path, level: str, learned: int
) -> None:
    engine = Engine(sigma(tmp_path, level), [ToolSequence()])
    assert engine.process(frame(*session("s", ["read_secret", "book"], 0, Random(1))))
    assert len(engine.profiles()) == learned


def test_a_state_goes_through_msgpack_and_names_who_starts_fresh() -> None:
    before = Engine(None, [ToolSequence()])
    before.process(in_order(sessions("a", 20)))
    after = Engine(None, [ToolSequence(), PolicyBlocks(Budget())])
    after.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(before.state())))
    assert after.started_fresh == ("policy_blocks",)
    assert after.state()["detectors"]["tool_sequence"] == before.state()["detectors"]["tool_sequence"]
    assert after.profiles() == before.profiles()


def test_a_state_of_another_version_lets_all_start_fresh_and_says_so() -> None:
    engine = Engine(None, learners())
    blank = engine.state()
    engine.process(in_order(sessions("a", 20)))
    engine.restore({"version": 0, "detectors": engine.state()["detectors"]})
    assert engine.started_fresh == tuple(LEARNERS)
    assert engine.state() == blank
    assert engine.take_faults() == [("engine", "its state has version 0, not 1; all is fresh")]


DAMAGED: tuple[Any, ...] = ({"version": 99}, {"version": 2}, {"version": 2, "table": 7}, None, [])


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_state_costs_only_the_detector_it_belongs_to(tmp_path: Path, damage: Any) -> None:
    before = Engine(sigma(tmp_path, "high"), learners())
    before.process(in_order(sessions("a", 20)))
    saved = before.state()
    for name in ("sigma", "policy_blocks"):
        after = Engine(sigma(tmp_path, "high"), learners())
        blank = after.state()["detectors"][name]
        after.restore({**saved, "detectors": {**saved["detectors"], name: damage}})
        assert after.started_fresh == (name,)
        assert [who for who, _ in after.take_faults()] == [name]
        assert after.state()["detectors"] == {**saved["detectors"], name: blank}


def test_a_learner_that_fails_stops_no_rule_and_no_other_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = judged_in_pieces(Engine(sigma(tmp_path, "high"), learners(GENEROUS)), 500)
    engine = Engine(sigma(tmp_path, "high"), learners(GENEROUS))
    monkeypatch.setattr(engine.learners[0], "seen", _poison)
    assert judged_in_pieces(engine, 500) == [one for one in whole if one.detector != "provenance"]
    [(name, fault)] = engine.take_faults()
    assert name == "provenance"
    assert fault.startswith("ZeroDivisionError in test_engine.py:")
    assert "an agent's words" not in fault
    assert engine.take_faults() == []
    assert set(engine.state()["detectors"]) == {"sigma", *LEARNERS} - {"provenance"}
    assert engine.tick(10**16) == []


def test_a_learner_that_fails_at_a_tick_or_a_verdict_is_out_of_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = {"kind": "verdict", "verdict": "true_positive", "agent_id": "a", "session_id": "s"}
    for method in ("tick", "verdict", "profiles"):
        engine = Engine(None, [ToolSequence(), PolicyBlocks()])
        monkeypatch.setattr(engine.learners[0], method, _poison)
        engine.control(record)
        engine.process(STREAM[:5])
        engine.tick(1)
        assert [name for name, _ in engine.take_faults()] == ["tool_sequence"]
        assert [one.name for one in engine.learners] == ["policy_blocks"]


@pytest.mark.parametrize("panic", [False, True])
def test_the_rules_skip_only_the_event_at_which_they_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, panic: bool
) -> None:
    stream = frame(*(event(at=at, tool_name="read_secret", event_id=f"e{at}") for at in range(9)))
    detector = sigma(tmp_path, "high")
    judge = detector._judged

    def judge_or_fail(batch: Batch, *which: Any) -> list[Finding]:
        if "e5" in batch.frame["event_id"]:
            raise pl.exceptions.PanicException("an agent's words") if panic else ZeroDivisionError
        return judge(batch, *which)

    monkeypatch.setattr(detector, "_judged", judge_or_fail)
    engine = Engine(detector)
    assert [one.event_ids for one in engine.process(stream)] == [(f"e{n}",) for n in range(9) if n != 5]
    assert [one.row for one in engine.process(stream)] == [0, 1, 2, 3, 4, 6, 7, 8]
    [(name, fault)] = engine.take_faults()
    assert name == "sigma"
    assert fault.endswith("event e5 was not judged by the rules")
    assert "an agent's words" not in fault


def test_correlations_count_no_event_twice_when_a_batch_is_judged_in_halves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rule_set = rules(STORM)
    detector = SigmaDetector(rule_set)
    judge = detector._judged

    def fail_late(batch: Batch, *which: Any) -> list[Finding]:
        found = judge(batch, *which)
        if batch.frame.height > 1:
            raise ZeroDivisionError
        return found

    monkeypatch.setattr(detector, "_judged", fail_late)
    denials = [event("policy.checked", at, policy_decision="deny") for at in range(4)]
    assert Engine(detector).process(frame(*denials)) == []


def _poison(*_: Any) -> Any:
    raise ZeroDivisionError("an agent's words")


STORM = detection("{policy_decision: deny}", name="deny", level="") + correlation(
    "{type: event_count, rules: [deny], group-by: [session_id], timespan: 60s, condition: {gte: 5}}"
)


def test_profiles_say_how_much_is_known_of_each_agent() -> None:
    engine = Engine(None, learners())
    engine.process(in_order(sessions("a", 60), sessions("b", 10)))
    # the last four hours of sessions still wait to be learned by one of them
    known = {"provenance": 56, "tool_sequence": 60, "policy_blocks": 60, "drift": 60}
    assert engine.profiles()[0] == {
        "agent_id": "a", "tenant": "default", "sessions": 60, "stage": "young", "detectors": known
    }  # fmt: skip
    assert [one["stage"] for one in engine.profiles()] == ["young", "shadow"]


def test_profiles_are_those_of_the_latest_agents() -> None:
    engine = Engine(None, [ToolSequence()])
    engine.process(
        in_order(*(sessions(f"agent-{n:04}", 1, start=n * 60.0) for n in range(MAX_PROFILES + 50)))
    )
    assert len(engine.profiles()) == MAX_PROFILES
    assert engine.profiles()[-1]["agent_id"] == f"agent-{MAX_PROFILES + 49:04}"


NOBODYS = (
    {},
    {"kind": "rules"},
    {"kind": "verdict"},
    {"kind": "verdict", "verdict": "duplicate"},
    {"kind": "verdict", "verdict": "true_positive", "session_id": None},
)


@pytest.mark.parametrize("record", NOBODYS)
def test_a_control_that_concerns_nobody_changes_nothing(record: dict[str, Any]) -> None:
    engine = Engine(None, learners())
    engine.process(in_order(sessions("a", 5)))
    state = engine.state()
    engine.control(record)
    assert engine.state() == state


def test_an_empty_engine_and_an_empty_frame_find_nothing() -> None:
    assert Engine(None, []).process(STREAM) == []
    assert Engine(None, learners()).process(STREAM.clear()) == []
    assert Engine(None, learners()).tick(1) == []


def test_a_fitted_model_reaches_the_detector_that_can_use_it() -> None:
    engine = Engine(None, learners())
    engine.control(
        {"kind": "model", "tenant": "default", "model": fitted(np.ones((20, len(FIGURES)))).state()}
    )
    assert [tenant for tenant, _ in engine.state()["detectors"]["session_outlier"]["models"]] == ["default"]
    assert engine.take_faults() == []


def test_a_model_that_is_none_puts_only_its_detector_out_of_service() -> None:
    engine = Engine(None, learners())
    engine.control({"kind": "model", "tenant": "default", "model": {"usual": []}})
    assert [name for name, _ in engine.take_faults()] == ["session_outlier"]
    assert set(engine.state()["detectors"]) == set(LEARNERS) - {"session_outlier"}
