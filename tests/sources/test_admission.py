"""Room for what comes in: bounded in all, shared between keys, and turns on the way to the disk."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.settings import EdgeSettings
from monitor.sources.admission import GREED, SHOWN_KEYS, Admission, Busy, Load, Pool
from monitor.sources.turns import Turns


def fill(pool: Pool, *keys: str) -> None:
    """Each key in turn takes one more until none gets any."""
    hungry = list(keys)
    while hungry:
        hungry = [key for key in hungry if pool.take(key, 1)]


def test_a_lone_key_may_use_most_of_the_room_and_leaves_some_for_a_quiet_one() -> None:
    pool = Pool(1000)
    fill(pool, "flood")
    assert pool.used == 1000 * GREED // (GREED + 1)
    assert pool.take("quiet", 150)


def test_greedy_keys_end_with_equal_shares() -> None:
    pool = Pool(1000)
    fill(pool, "a", "b", "c")
    shares = pool.held().values()
    assert max(shares) - min(shares) <= 1
    assert sum(shares) > 900


def test_a_key_that_holds_nothing_may_take_all_that_is_free() -> None:
    pool = Pool(1000)
    assert pool.take("large", 1000)
    assert not pool.take("late", 1)
    pool.give_back("large", 1000)
    assert pool.take("late", 1)
    assert pool.held() == {"late": 1}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 600)), max_size=60))
def test_a_pool_never_holds_more_than_its_limit_and_gives_all_back(wanted: list[tuple[str, int]]) -> None:
    pool = Pool(1000)
    taken = [(key, amount) for key, amount in wanted if pool.take(key, amount)]
    assert pool.used == sum(amount for _, amount in taken) <= 1000
    for key, amount in taken:
        pool.give_back(key, amount)
    assert (pool.used, pool.held()) == (0, {})


def test_refusals_are_counted_by_key_and_the_list_is_bounded() -> None:
    admission = Admission(EdgeSettings(max_waiting_events=1))
    assert admission.events.take("one", 1)
    for n in range(200):
        for _ in range(n):
            with pytest.raises(Busy, match="events are waiting"), admission.waiting(f"k{n}", 1):
                pass
    pressure = admission.pressure()
    assert pressure["throttled_total"] == sum(range(200))
    assert len(pressure["by_key"]) == SHOWN_KEYS
    assert pressure["by_key"]["k199"]["throttled_total"] == 199


def test_a_request_gives_its_room_back_once() -> None:
    admission = Admission(EdgeSettings())
    load = Load(admission)
    load.grow("k", 10)
    load.grow("k", 5)
    assert admission.bytes.held() == {"k": 15}
    load.release()
    load.release()
    assert admission.bytes.held() == {}


def test_a_flood_waits_behind_itself() -> None:
    turns: Turns[str] = Turns()
    for n in range(100):
        turns.add("flood", f"flood-{n}", 500)
    turns.add("quiet", "quiet-0", 500)
    group = turns.take(2000)
    assert "quiet-0" in group
    assert len(group) <= 5


def test_a_request_larger_than_a_group_gets_its_turn_too() -> None:
    turns: Turns[str] = Turns()
    turns.add("large", "large", 50_000)
    assert turns.take(10_000) == ["large"]
    assert not turns


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3000)), max_size=80),
    st.integers(1, 5000),
)
def test_everything_leaves_once_in_the_order_of_its_key(waiting: list[tuple[str, int]], room: int) -> None:
    turns: Turns[tuple[str, int]] = Turns()
    for index, (key, cost) in enumerate(waiting):
        turns.add(key, (key, index), cost)
    left: list[tuple[str, int]] = []
    while turns:
        group = turns.take(room)
        assert group
        left += group
    assert sorted(index for _, index in left) == list(range(len(waiting)))
    for key in "abcd":
        own = [index for name, index in left if name == key]
        assert own == sorted(own)
