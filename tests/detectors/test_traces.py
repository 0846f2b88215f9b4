"""The learning detectors on recorded agents: the benchmark's own numbers are in docs/detectors.md."""

from __future__ import annotations

import gzip
from functools import cache
from itertools import islice
from pathlib import Path

import msgspec
import polars as pl
import pytest

from detectors.base import Finding
from detectors.engine import Engine
from detectors.registry import learners
from monitor.events import Record, arrow_batch
from monitor.frames import to_frame

TRACES = Path(__file__).parents[2].parent / "shared" / "traces" / "agentdojo-dev.ndjson.gz"
EVENTS = 20_000

pytestmark = pytest.mark.skipif(not TRACES.exists(), reason="the recorded traces in ../shared are missing")


@cache
def recorded() -> pl.DataFrame:
    decoder = msgspec.json.Decoder(Record)
    with gzip.open(TRACES) as lines:
        return to_frame(arrow_batch([decoder.decode(line) for line in islice(lines, EVENTS)]))


@cache
def found() -> list[Finding]:
    engine, frame = Engine(None, learners(30.0)), recorded()
    return [one for first in range(0, EVENTS, 3_000) for one in engine.process(frame[first : first + 3_000])]


def test_recorded_agents_that_nobody_attacks_stay_within_the_budget() -> None:
    frame = recorded().filter(pl.col("timestamp") < pl.datetime(2026, 1, 15, time_zone="UTC"))
    benign = frame["session_id"].n_unique()
    engine = Engine(None, learners())
    assert benign > 300
    assert len(engine.process(frame)) <= 2 * benign * 5 / 1_000


def test_drift_sees_none_where_every_session_draws_its_model_at_random() -> None:
    assert not [one for one in found() if one.detector == "drift"]


def test_each_finding_explains_itself() -> None:
    assert {one.detector for one in found()} >= {"provenance", "policy_blocks"}
    for one in found():
        assert 0 < one.evidence["p_value"] <= 0.033
        assert one.reason
        assert one.level in {"low", "medium", "high"}
