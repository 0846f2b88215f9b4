"""What every learning detector promises, held over each that is registered."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import LEVELS, Batch, Detector
from detectors.calibration import Budget
from detectors.drift import Drift
from detectors.policy_blocks import PolicyBlocks
from detectors.provenance import Provenance
from detectors.registry import LEARNERS
from detectors.session_outlier import SessionOutlier, fitted
from detectors.tool_sequence import ToolSequence
from monitor.events import EVENT_TYPES
from tests.builders import event, frame
from tests.detectors.streams import HOUR, in_order, mixed, reborn, run, sessions

GENEROUS = Budget(150.0)
"""So many false alerts that a short stream holds some of every kind."""

STREAM = mixed()

EACH = pytest.mark.parametrize("name", LEARNERS)

SMALL: dict[str, Callable[[], Detector]] = {
    "provenance": lambda: Provenance(
        max_live=30, max_agents=20, max_contexts=300, max_used=50, max_text=20_000, max_waiting=100, kept=50
    ),
    "tool_sequence": lambda: ToolSequence(
        max_live=30, max_agents=20, max_contexts=50, max_contexts_in_all=300
    ),
    "policy_blocks": lambda: PolicyBlocks(max_live=30, max_agents=20),
    "session_outlier": lambda: SessionOutlier(max_live=30, max_agents=20),
    "drift": lambda: Drift(max_live=30, max_agents=20),
}


def make(name: str) -> Detector:
    if name == SessionOutlier.name:
        outlier = SessionOutlier(Budget(150.0, {name: 1.0}))
        outlier.use("default", outlier_model())
        return outlier
    return LEARNERS[name](GENEROUS)


@cache
def outlier_model() -> dict[str, Any]:
    """What a refit on the sessions of the stream would give."""
    told: list[Sequence[float]] = []
    detector = SessionOutlier(GENEROUS)
    detector.collect = lambda _, figures: told.append(figures)
    run(detector, STREAM)
    return fitted(np.array(told)).state()


def test_every_registered_detector_has_a_small_twin_here() -> None:
    assert set(SMALL) == set(LEARNERS)


@EACH
def test_the_stream_holds_something_to_find(name: str) -> None:
    found = run(make(name), STREAM)
    assert found
    assert all(one.level in LEVELS and one.learned and one.detector == name for one in found)
    assert [one.row for one in found] == sorted(one.row for one in found)
    assert len({one.finding_id for one in found}) == len(found)


@EACH
def test_the_same_stream_gives_the_same_findings(name: str) -> None:
    assert run(make(name), STREAM) == run(make(name), STREAM)


@EACH
@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(1, STREAM.height - 1), max_size=40))
def test_however_the_stream_is_cut_the_findings_and_the_state_are_equal(name: str, cuts: list[int]) -> None:
    whole, cut = make(name), make(name)
    assert run(cut, STREAM, cuts) == run(whole, STREAM)
    assert cut.state() == whole.state()


@EACH
@settings(max_examples=12, deadline=None)
@given(at=st.integers(1, STREAM.height - 1))
def test_a_restored_detector_goes_on_as_if_nothing_had_happened(name: str, at: int) -> None:
    whole, before = make(name), make(name)
    found = run(before, STREAM[:at])
    after = reborn(before, make(name))
    assert after.state() == before.state()
    found += [msgspec.structs.replace(one, row=one.row + at) for one in run(after, STREAM[at:])]
    assert found == run(whole, STREAM)
    assert after.state() == whole.state()


@EACH
def test_a_saved_state_does_not_change_when_the_detector_goes_on(name: str) -> None:
    detector = make(name)
    run(detector, STREAM[:1000])
    state = detector.state()
    saved = msgspec.msgpack.encode(state)
    run(detector, STREAM[1000:])
    assert msgspec.msgpack.encode(state) == saved


@EACH
def test_a_tick_ends_the_same_sessions_before_and_after_a_restart(name: str) -> None:
    def watch(restart: bool) -> tuple[list[Any], dict[str, Any]]:
        detector, found = make(name), []
        for number, first in enumerate(range(0, STREAM.height, 400)):
            found += detector.process(Batch(STREAM[first : first + 400]))
            if restart:
                detector = reborn(detector, make(name))
            found += detector.tick(number * 1_000_000_000)
        return found, detector.state()

    assert watch(restart=True) == watch(restart=False)


@EACH
def test_an_empty_batch_changes_nothing(name: str) -> None:
    detector = make(name)
    run(detector, STREAM[:500])
    state = detector.state()
    assert detector.process(Batch(STREAM.clear())) == []
    assert detector.state() == state


@EACH
def test_a_state_of_another_version_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="version"):
        make(name).restore({"version": 99})


@EACH
def test_rows_of_nothing_but_nulls_are_passed_over(name: str) -> None:
    detector = make(name)
    assert detector.process(Batch(STREAM.clear(50))) == []
    assert detector.state() == make(name).state()


KINDS = st.sampled_from(sorted(EVENT_TYPES))
TEXT = st.one_of(st.none(), st.text(max_size=12), st.just("x" * 100_000), st.just("\x1f\x1e\u202e\n"))
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
JSON = st.recursive(SCALAR, lambda one: st.one_of(st.lists(one), st.dictionaries(st.text(), one))).map(
    json.dumps
)
MOMENTS = st.sampled_from([datetime(year, 1, 1, tzinfo=UTC) for year in (1, 1969, 1970, 2026, 9999)])
HOSTILE = st.fixed_dictionaries(
    {
        "agent_id": st.sampled_from(["a", "b", "", "y" * 50_000]),
        "timestamp": MOMENTS,
        "ingested_at": st.one_of(st.none(), MOMENTS),
        "tenant": st.sampled_from([None, "", "t"]),
        "session_id": TEXT,
        "tool_name": TEXT,
        "tool_call_id": TEXT,
        "tool_args": st.one_of(TEXT, JSON),
        "tool_result": st.one_of(TEXT, JSON),
        "task_goal": TEXT,
        "effect": st.sampled_from([None, "read", "write", "external", "irreversible"]),
        "business_role": TEXT,
        "model_id": TEXT,
        "model_output": TEXT,
        "error_type": TEXT,
        "change_ref": TEXT,
        "revision": st.sampled_from([None, 0, 1, -1]),
        "output_tokens": st.sampled_from([None, 0, -5, 2**62]),
        "latency_ms": st.sampled_from([None, 0.0, -1.0, 1e308, float("inf"), float("nan")]),
        "policy_decision": st.sampled_from([None, "deny", "allow"]),
        "outcome": st.sampled_from([None, "blocked", "failure"]),
    }
)


@EACH
@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(KINDS, HOSTILE), min_size=1, max_size=30))
def test_hostile_input_breaks_nothing(name: str, rows: list[tuple[str, dict[str, Any]]]) -> None:
    detector = make(name)
    run(detector, STREAM[:300])
    events = frame(*(event(kind, **columns, event_id=f"h{i}") for i, (kind, columns) in enumerate(rows)))
    for one in [*run(detector, events), *detector.tick(1 << 60)]:
        assert len(one.reason) < 2_000
        assert len(msgspec.json.encode(one.evidence)) < 20_000
    assert reborn(detector, make(name)).state() == detector.state()


@EACH
def test_memory_does_not_grow_with_agents_sessions_and_tools(name: str) -> None:
    def crowd(first: int) -> pl.DataFrame:
        return in_order(
            *(
                sessions(f"agent-{n:03}", 3, start=n * HOUR, refused=0.5, closing=n % 2 == 0)
                for n in range(first, first + 100)
            ),
            (
                event(
                    "tool.requested",
                    n * HOUR,
                    tool_name=f"tool-{n:03}-{k:02}",
                    event_id=f"{n:03}-{k:02}",
                    agent_id=f"z{n:03}",
                )
                for n in range(first, first + 100)
                for k in range(20)
            ),
        )

    detector = SMALL[name]()
    sizes = []
    for first in range(0, 600, 100):
        run(detector, crowd(first))
        sizes.append(len(msgspec.msgpack.encode(detector.state())))
    assert max(sizes[3:]) < 1.5 * max(sizes[:3])


@EACH
def test_late_context_of_a_judged_event_is_not_learned_again(name: str) -> None:
    once, twice = make(name), make(name)
    run(once, STREAM[:300])
    run(twice, STREAM[:300])
    run(twice, STREAM[:300].with_columns(revision=pl.lit(1, dtype=pl.Int64)))
    assert twice.state() == once.state()
