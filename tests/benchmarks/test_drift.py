"""How soon a silent change of model is found, on recorded agents.

The traces hold three agents that ran on thirteen models each. A stream is one agent's harmless
sessions of one model, drawn with replacement, one an hour; a swap goes on with those of another
model. Of each agent every model is followed by the next two in order. Figures: docs/benchmarks.md.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import polars as pl
import pytest

from detectors.base import Batch
from detectors.drift import Drift
from monitor.events import Record, arrow_batch
from monitor.frames import to_frame

TRACES = Path(__file__).parents[2].parent / "shared" / "traces"
HARMLESS = frozenset({"benign", "resisted_unexposed"})

BEFORE, AFTER = 200, 200
"""Sessions of the first model, and of the second."""

STEADY = 450
"""Sessions of a stream in which nothing changes."""

pytestmark = pytest.mark.skipif(not TRACES.exists(), reason="the recorded traces in ../shared are missing")


@cache
def recorded() -> tuple[pl.DataFrame, dict[str, dict[str, list[str]]]]:
    """The events of harmless sessions, and these sessions by agent and model."""
    with gzip.open(TRACES / "agentdojo-dev.labels.csv.gz", "rt") as labels:
        harmless = {one["session_id"] for one in csv.DictReader(labels) if one["eval_class"] in HARMLESS}
    decoder = msgspec.json.Decoder(Record)
    with gzip.open(TRACES / "agentdojo-dev.ndjson.gz") as lines:
        records = [one for one in map(decoder.decode, lines) if one.session_id in harmless]
    found: dict[str, dict[str, set[str]]] = {}
    for one in records:
        if one.model_id:
            found.setdefault(one.agent_id, {}).setdefault(one.model_id, set()).add(one.session_id)
    frame = to_frame(arrow_batch(records))
    begun = pl.col("timestamp") - pl.col("timestamp").min().over("session_id")
    sessions = {agent: {name: sorted(ids) for name, ids in of.items()} for agent, of in sorted(found.items())}
    return frame.with_columns(offset=begun, place=pl.int_range(pl.len())), sessions


def stream(drawn: Sequence[str]) -> pl.DataFrame:
    """The sessions one after the other, an hour apart, each as a session of its own."""
    frame, _ = recorded()
    told = pl.DataFrame({"session_id": drawn, "number": np.arange(len(drawn))})
    start = pl.datetime(2026, 1, 5, time_zone="UTC") + pl.duration(hours=pl.col("number"))
    name = pl.format("{}-{}", pl.col("number"), pl.col("session_id"))
    return (
        told.join(frame, on="session_id")
        .sort("number", "place")
        .with_columns(
            timestamp=(start + pl.col("offset")).cast(frame.schema["timestamp"]),
            session_id=name,
            event_id=pl.format("{}-{}", pl.col("number"), pl.col("event_id")),
        )
        .select(column for column in frame.columns if column not in ("offset", "place"))
    )


def alarms(drawn: Sequence[str]) -> list[int]:
    """The numbers of the sessions at which drift was told."""
    events = stream(drawn)
    names = events["session_id"].to_list()
    return [int(names[one.row].split("-")[0]) for one in Drift().process(Batch(events))]


def swaps() -> Iterator[tuple[list[str], list[str]]]:
    for models in recorded()[1].values():
        names = sorted(models)
        for place, name in enumerate(names):
            for step in (1, 2):
                yield models[name], models[names[(place + step) % len(names)]]


def test_a_silent_swap_of_the_model_is_found() -> None:
    delays = []
    tried = 0
    for seed, (before, after) in enumerate(swaps()):
        rng = np.random.default_rng(seed)
        found = alarms([*rng.choice(before, BEFORE), *rng.choice(after, AFTER)])
        tried += 1
        delays += [at - BEFORE for at in found if at >= BEFORE][:1]
    print(f"\n{len(delays)} of {tried} swaps found, after a median of {median(delays):g} sessions")
    assert tried == 78
    assert len(delays) >= 0.88 * tried
    assert median(delays) <= 31


def test_nothing_is_told_of_streams_in_which_nothing_changes() -> None:
    false, sessions = 0, 0
    for models in recorded()[1].values():
        for seed, name in enumerate(sorted(models)):
            drawn = np.random.default_rng(seed).choice(models[name], STEADY)
            false += len(alarms([*drawn]))
            sessions += STEADY
    print(f"\n{false} false alarms in {sessions:,} sessions")
    assert false == 0
