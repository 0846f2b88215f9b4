from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from monitor.sources.spool import Position
from monitor.store.snapshots import Snapshots


@dataclass
class Engine:
    """Stands for whatever can be saved: here, a plain mapping."""

    data: dict[str, Any] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        return self.data


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def _move_the_position(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\xa7segment\x02", b"\xa7segment\x03"))


def test_state_and_position_come_back_as_they_were(tmp_path: Path) -> None:
    data = {"version": 1, "agents": {"a": [1.5, None, b"\x00\xff", -(2**63), "ü"]}, "nested": {"7": True}}
    Snapshots(tmp_path, 5).save(Engine(data), Position(3, 99))
    assert Snapshots(tmp_path, 5).load() == (data, Position(3, 99))


def test_an_empty_folder_holds_no_snapshot(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "new", 5)
    assert snapshots.load() is None


def test_the_last_two_are_kept_and_the_newer_is_used(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, 5)
    for number in range(1, 6):
        snapshots.save(Engine({"n": number}), Position(number, 20))
    assert len(list(tmp_path.iterdir())) == 2
    assert snapshots.load() == ({"n": 5}, Position(5, 20))


@pytest.mark.parametrize("harm", [_cut, _empty, _flip_a_bit, _move_the_position])
def test_a_damaged_snapshot_is_reported_and_the_one_before_is_used(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    snapshots = Snapshots(tmp_path, 5)
    snapshots.save(Engine({"n": 1}), Position(1, 20))
    newest = snapshots.save(Engine({"n": 2}), Position(2, 20))
    before = newest.read_bytes()
    harm(newest)
    assert newest.read_bytes() != before
    assert snapshots.load() == ({"n": 1}, Position(1, 20))
    assert snapshots.damaged == [newest]


def test_a_damaged_snapshot_takes_no_sound_ones_place(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, 5)
    snapshots.save(Engine({"n": 1}), Position(1, 20))
    _cut(snapshots.save(Engine({"n": 2}), Position(2, 20)))
    snapshots.load()
    _cut(snapshots.save(Engine({"n": 3}), Position(3, 20)))
    assert snapshots.load() == ({"n": 1}, Position(1, 20))


def test_when_all_are_damaged_none_is_loaded_and_all_are_reported(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, 5)
    paths = [snapshots.save(Engine(), Position(n, 20)) for n in (1, 2)]
    for path in paths:
        _cut(path)
    assert snapshots.load() is None
    assert sorted(snapshots.damaged) == paths


def test_a_draft_left_by_a_killed_process_is_no_snapshot(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, 5)
    path = snapshots.save(Engine({"n": 1}), Position(1, 20))
    path.with_name("000000000002.draft").write_bytes(b"half")
    assert snapshots.load() == ({"n": 1}, Position(1, 20))
    assert snapshots.damaged == []


def test_a_snapshot_is_due_once_its_time_has_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("monitor.store.snapshots.time.monotonic", lambda: clock[0])
    snapshots = Snapshots(tmp_path, 5)
    assert not snapshots.due()
    clock[0] += 5
    assert snapshots.due()
    snapshots.save(Engine(), Position())
    assert not snapshots.due()


def test_a_snapshot_is_its_owners_alone(tmp_path: Path) -> None:
    path = Snapshots(tmp_path / "snapshots", 5).save(Engine(), Position())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
