from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from detectors.calibration import Budget
from detectors.engine import MAX_PROFILES, Engine
from detectors.policy_blocks import PolicyBlocks
from detectors.registry import learners
from detectors.sigma import SigmaDetector, load_rules
from detectors.tool_sequence import ToolSequence
from monitor.events import rule_fields
from tests.builders import frame
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
    assert {one.detector for one in whole} == {"sigma", "tool_sequence", "policy_blocks", "drift"}


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


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        Engine(None, []).restore({"version": 0, "detectors": {}})


def test_profiles_say_how_much_is_known_of_each_agent() -> None:
    engine = Engine(None, learners())
    engine.process(in_order(sessions("a", 60), sessions("b", 10)))
    known = {"tool_sequence": 60, "policy_blocks": 60, "drift": 60}
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
