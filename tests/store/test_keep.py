"""Storing segment by segment: what is sealed gets into ClickHouse once, whatever became of the spool."""

from __future__ import annotations

from pathlib import Path

from monitor.events import arrow_batch
from monitor.frames import to_bytes
from monitor.pipeline import Keep
from monitor.sources.spool import Entry, Position, SpoolWriter, segment_path
from monitor.store.clickhouse import EventStore
from monitor.store.positions import Positions
from monitor.store.state import State
from tests.builders import event


def write(folder: Path, *names: str, read_to: Position | None = None) -> None:
    """One sealed segment for each name, holding one event of that id."""
    writer = SpoolWriter(folder, read_to=read_to)
    for name in names:
        record = event(event_id=name, ingested_at=event().timestamp)
        writer.append([(Entry.EVENTS, to_bytes(arrow_batch([record])))])
        writer.seal()
    writer.close()


class Storing:
    """A Keep over a spool, and what it told."""

    def __init__(self, folder: Path, store: EventStore, state: State) -> None:
        self.lost: list[tuple[int, int]] = []
        self.store = store
        self.keep = Keep(folder, store, Positions(state), lambda first, last: self.lost.append((first, last)))

    def run(self) -> list[str]:
        """Store all there is; the ids in the store, in order."""
        while self.keep.step():
            pass
        found = self.store.writer.query("SELECT event_id FROM events ORDER BY event_id").result_rows
        return [row[0] for row in found]


def test_segments_that_are_gone_before_they_were_stored_are_told_once_and_the_rest_is_stored(
    tmp_path: Path, store: EventStore, state: State
) -> None:
    folder = tmp_path / "spool"
    write(folder, "a")
    assert Storing(folder, store, state).run() == ["a"]
    write(folder, "b", "c", "d")
    segment_path(folder, 2).unlink()
    segment_path(folder, 3).unlink()
    storing = Storing(folder, store, state)
    assert storing.run() == ["a", "d"]
    assert storing.lost == [(2, 3)]


def test_a_spool_that_was_emptied_by_hand_goes_on_behind_what_was_read(
    tmp_path: Path, store: EventStore, state: State
) -> None:
    folder = tmp_path / "spool"
    write(folder, "a", "b", "c")
    assert Storing(folder, store, state).run() == ["a", "b", "c"]
    for file in (*folder.glob("*.segment"), folder / "next"):
        file.unlink()
    write(folder, "d", read_to=Positions(state).furthest())
    assert Storing(folder, store, state).run() == ["a", "b", "c", "d"]


def test_a_data_folder_put_back_from_a_copy_loses_nothing_new_to_old_insert_tokens(
    tmp_path: Path, store: EventStore, state: State
) -> None:
    folder = tmp_path / "spool"
    write(folder, "a", "b")
    identity = (folder / "id").read_text()
    assert Storing(folder, store, state).run() == ["a", "b"]
    for file in folder.iterdir():
        file.unlink()
    (folder / "id").write_text(identity)
    Positions(state).save("store", Position())
    write(folder, "a", "other")
    # the first segment is the same as before and its insert a repeat; the second is another one
    assert Storing(folder, store, state).run() == ["a", "b", "other"]
