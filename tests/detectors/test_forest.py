"""The forest as plain arrays is the one that scikit-learn has fitted."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from detectors.forest import SAMPLE, TREES, Forest, fit


def drawn(rows: int, seed: int = 0, columns: int = 11) -> Any:
    rng = np.random.default_rng(seed)
    return np.log1p(rng.lognormal(2, 1, (rows, columns)).round())


@settings(max_examples=8, deadline=None)
@given(rows=st.integers(2, 600), seed=st.integers(0, 5))
def test_its_scores_are_those_of_scikit_learn(rows: int, seed: int) -> None:
    vectors, others = drawn(rows, seed), drawn(50, seed + 100) * 3
    theirs = IsolationForest(n_estimators=TREES, max_samples=min(SAMPLE, rows), random_state=seed).fit(
        vectors
    )
    ours = fit(vectors, seed)
    for told in (vectors, others):
        assert ours.scores(told) == pytest.approx(-theirs.score_samples(told), abs=1e-9)


def test_equal_sessions_can_be_fitted_and_a_stranger_scores_higher() -> None:
    vectors = drawn(500)
    forest = fit(vectors)
    stranger = np.full((1, 11), vectors.max() * 2)
    assert forest.scores(stranger)[0] > np.quantile(forest.scores(vectors), 0.99)
    assert len(fit(np.zeros((300, 11))).scores(np.ones((2, 11)))) == 2


def test_its_state_is_plain_and_gives_it_back() -> None:
    vectors = drawn(300)
    forest = fit(vectors)
    again = Forest.restored(msgspec.msgpack.decode(msgspec.msgpack.encode(forest.state())))
    assert (again.scores(vectors) == forest.scores(vectors)).all()
    assert len(msgspec.msgpack.encode(forest.state())) < 3_000_000


def test_the_same_sessions_give_the_same_forest() -> None:
    assert fit(drawn(300)).state() == fit(drawn(300)).state()


@pytest.mark.parametrize(
    "damage",
    [
        {"left": b""},
        {"left": np.full(3, 10**6, "<i4").tobytes()},
        {"roots": np.array([-1], "<i4").tobytes()},
        {"roots": b""},
        {"depth": 10**9},
    ],
)
def test_a_damaged_state_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="do not hold together"):
        Forest.restored({**fit(drawn(50)).state(), **damage})
