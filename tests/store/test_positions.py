from __future__ import annotations

import os

import pytest

from monitor.sources.spool import Position
from monitor.store.heartbeat import beat
from monitor.store.positions import Positions
from monitor.store.state import Process, State


def test_a_process_that_never_read_starts_at_the_beginning(state: State) -> None:
    assert Positions(state).load("detection") == Position()


def test_a_saved_position_is_found_again_and_replaced(state: State) -> None:
    positions = Positions(state)
    positions.save("detection", Position(3, 70))
    positions.save("detection", Position(4, 20))
    assert Positions(state).load("detection") == Position(4, 20)


def test_a_position_saved_in_a_transaction_goes_with_it(state: State) -> None:
    positions = Positions(state)

    def break_off() -> None:
        with state.write() as session:
            positions.save("detection", Position(9, 20), session)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert positions.load("detection") == Position()


def test_the_oldest_position_is_the_slowest_readers(state: State) -> None:
    positions = Positions(state)
    positions.save("detection", Position(7, 20))
    positions.save("store", Position(5, 900))
    assert positions.oldest("detection", "store") == Position(5, 900)


def test_nothing_may_be_dropped_before_every_reader_has_begun(state: State) -> None:
    positions = Positions(state)
    assert positions.oldest() is None
    positions.save("store", Position(5, 900))
    assert positions.oldest("detection", "store") is None


def test_a_heartbeat_shows_pid_counters_and_position(state: State) -> None:
    beat(state, "edge", {"events": 1}, {})
    beat(state, "edge", {"events": 2}, {"rules": "ok"}, Position(2, 30))
    with state.read() as session:
        row = session.get_one(Process, "edge")
    assert (row.pid, row.metrics, row.detail) == (os.getpid(), {"events": 2}, {"rules": "ok"})
    assert (row.segment, row.offset) == (2, 30)


def test_a_new_process_under_an_old_name_starts_anew(state: State) -> None:
    with state.write() as session:
        session.add(Process(name="edge", pid=1, started_at=5, beat_at=5, metrics={}, detail={}))
    beat(state, "edge", {}, {})
    with state.read() as session:
        row = session.get_one(Process, "edge")
    assert row.pid == os.getpid()
    assert row.started_at > 5
