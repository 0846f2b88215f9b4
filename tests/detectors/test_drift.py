from __future__ import annotations

import math
from functools import cache
from random import Random
from typing import Any

import msgspec
import pytest

from detectors.base import Finding
from detectors.drift import Drift
from detectors.moving import REBUILD_AT, Figure
from monitor.events import REPLAYED
from tests.builders import event, frame
from tests.detectors.streams import DAY, HOUR, in_order, run, sessions

OLD = {"model_provider": "acme", "model_id": "m-1", "model_version": "2026-01", "policy_version": "p1"}
NEW = {**OLD, "model_id": "m-2", "model_version": "2026-02", "output": 1.8}
LATER = 20 * DAY


@cache
def history(count: int) -> bytes:
    detector = Drift()
    run(detector, in_order(sessions("invoice-agent", count, **OLD)))
    return msgspec.msgpack.encode(detector.state())


def knowing(count: int = 230) -> Drift:
    detector = Drift()
    detector.restore(msgspec.msgpack.decode(history(count)))
    return detector


def after(detector: Drift, count: int, start: float = LATER, **columns: Any) -> list[Finding]:
    return run(detector, in_order(sessions("invoice-agent", count, start=start, **columns)))


def declare(detector: Drift, kind: str | None, at: float = LATER - HOUR) -> None:
    told = event("change.declared", at, session_id=None, change_kind=kind, change_ref="release-7")
    assert run(detector, frame(told)) == []


def test_a_silent_change_of_model_is_found_within_forty_sessions_and_named() -> None:
    [finding] = after(knowing(), 40, **NEW)
    assert finding.level == "high"
    assert finding.evidence["changed"] == {
        "model_id": {"old": "m-1", "new": "m-2"},
        "model_version": {"old": "2026-01", "new": "2026-02"},
    }
    assert "output tokens per model call went from 2" in finding.reason
    assert "model_id changed from m-1 to m-2" in finding.reason
    assert "without a declared change" in finding.reason
    assert finding.session_id is None


def test_the_evidence_tells_before_from_after_and_when() -> None:
    [finding] = after(knowing(), 40, **NEW)
    evidence, name = finding.evidence, "output tokens per model call"
    assert evidence["observed"][name] == pytest.approx(1.8 * evidence["expected"][name], rel=0.2)
    first, last = finding.event_ids[0], finding.event_ids[-1]
    assert f"-{LATER:.0f}-" in last
    assert evidence["sessions_since"] == finding.event_count <= 40
    assert f"-{LATER:.0f}-{1}-" in first or f"-{LATER:.0f}-{0}-" in first
    assert evidence["p_value"] == 0.002
    assert evidence["profile"]["stage"] == "full"


def test_a_change_of_behaviour_alone_is_found_and_says_that_no_version_changed() -> None:
    [finding] = after(knowing(), 40, **{**OLD, "output": 2.0})
    assert finding.evidence["changed"] == {}
    assert "no reported version changed with it" in finding.reason


def test_a_young_profile_is_of_level_medium_and_one_in_the_shadow_says_nothing() -> None:
    [finding] = after(knowing(120), 40, **NEW)
    assert (finding.level, finding.evidence["profile"]["stage"]) == ("medium", "young")
    assert after(knowing(20), 25, **{**NEW, "output": 5.0}) == []


@pytest.mark.parametrize("kind", ["model", "prompt", "tools", "policy", None])
def test_a_declared_change_is_no_finding(kind: str | None) -> None:
    detector = knowing()
    declare(detector, kind)
    assert after(detector, 150, **NEW) == []


def test_a_permission_explains_no_other_behaviour() -> None:
    detector = knowing()
    declare(detector, "permission")
    [finding] = after(detector, 40, **NEW)
    assert finding.evidence["declared_change"]["kind"] == "permission"


def test_a_silent_change_after_a_declared_one_is_found() -> None:
    detector = knowing()
    declare(detector, "model")
    assert after(detector, 230, **NEW) == []
    [finding] = after(detector, 40, LATER + 30 * DAY, **{**NEW, "model_id": "m-3", "output": 3.6})
    assert finding.evidence["declared_change"] == {"kind": "model", "ref": "release-7", "days_before": 30.42}
    assert finding.evidence["changed"]["model_id"] == {"old": "m-2", "new": "m-3"}


def test_a_session_that_began_before_the_declared_change_says_nothing_about_it() -> None:
    detector = knowing()
    early = sessions("invoice-agent", 1, start=LATER, closing=False, **OLD)
    run(detector, in_order(early))
    declare(detector, "model", LATER + 60)
    run(detector, frame(event("task.completed", LATER + 90, session_id=early[0].session_id)))
    assert detector.profiles() == [("default", "invoice-agent", 0, "shadow")]


def test_one_drift_is_one_finding() -> None:
    assert len(after(knowing(), 150, **{**NEW, "latency": 1.6})) == 1


def test_agents_that_stay_as_they_are_are_not_found() -> None:
    detector = Drift()
    assert run(detector, in_order(*(sessions(f"agent-{n}", 500, start=n) for n in range(6)))) == []


def heavy(rng: Random, kind: str) -> float:
    if kind == "lognormal":
        return math.log1p(math.exp(rng.gauss(5, 1)))
    if kind == "pareto":
        return math.log1p(100 * rng.paretovariate(1.2))
    if kind == "rare":
        return math.log1p(rng.random() < 0.03)
    if kind == "mixture":
        return rng.choice([2.0, 3.0, 5.0]) + rng.gauss(0, 0.1)
    return math.log1p(int(50 * rng.random()) if rng.random() < 0.02 else 0)


@pytest.mark.parametrize("kind", ["lognormal", "pareto", "rare", "mixture", "spikes"])
def test_heavy_tails_are_no_drift(kind: str) -> None:
    alarms = 0
    for seed in range(10):
        figure, rng = Figure(), Random(seed)
        alarms += any(figure.add(heavy(rng, kind)) for _ in range(1_000))
    assert alarms == 0


def test_sessions_that_resemble_their_neighbours_are_no_drift() -> None:
    alarms = 0
    for seed in range(20):
        figure, rng, level = Figure(), Random(seed), 0.0
        for _ in range(600):
            level = 0.5 * level + rng.gauss(0, 0.3)
            alarms += figure.add(5 + level)
    assert alarms <= 1


def test_a_restored_figure_goes_on_as_the_plain_one_does() -> None:
    rng = Random(5)
    plain, restored = Figure(), Figure()
    for number in range(3 * REBUILD_AT):
        value = rng.gauss(5, 0.3) + (0.6 if number > 2.5 * REBUILD_AT else 0)
        if number % 97 == 0:
            restored = Figure.restored(
                restored.delta, msgspec.msgpack.decode(msgspec.msgpack.encode(restored.state()))
            )
        alarm = plain.add(value)
        assert restored.add(value) == alarm
        assert len(plain.values) <= REBUILD_AT
        if alarm:
            break
    assert alarm
    assert restored.since() == plain.since()


def test_output_without_token_counts_is_measured_in_bytes() -> None:
    def talking(agent: str, count: int, start: float, words: int) -> list[Any]:
        rng, told = Random(words), sessions(agent, count, start=start)
        for one in told:
            if one.event_type == "model.invoked":
                one.output_tokens, one.model_output = (
                    None,
                    "word " * round(words * rng.lognormvariate(0, 0.3)),
                )
        return told

    detector = Drift()
    [finding] = run(detector, in_order(talking("a", 230, 0, 40), talking("a", 40, LATER, 100)))
    assert finding.evidence["alarmed"] == ["output_size"]


def test_a_model_that_begins_to_write_beside_its_tool_calls_is_found() -> None:
    def writing(count: int, start: float, share: float) -> list[Any]:
        rng, told = Random(1), sessions("a", count, start=start)
        for one in told:
            if one.event_type == "model.invoked":
                one.model_output = "word " * 40 if rng.random() < share else None
        return told

    [finding] = run(Drift(), in_order(writing(230, 0, 0.3), writing(40, LATER, 0.9)))
    assert finding.evidence["alarmed"] == ["writing"]
    assert "share of model calls with output went from 0.2" in finding.reason


def test_drift_is_a_replayed_finding_only_where_replayed_sessions_show_it() -> None:
    mark = {"attributes": {REPLAYED: "run-1"}}
    [replayed], [live] = after(knowing(), 40, **NEW, **mark), after(knowing(), 40, **NEW)
    assert (replayed.replayed, live.replayed) == (True, False)
    assert replayed.event_ids == live.event_ids
    assert replayed.finding_id != live.finding_id
