"""Group commit, repeats, dead letters and keys, without HTTP."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from monitor.events import arrow_batch
from monitor.frames import to_bytes
from monitor.settings import Settings, SpoolSettings
from monitor.sources import sealing
from monitor.sources.commit import Busy, Committer
from monitor.sources.deadletters import DeadLetter, DeadLetters
from monitor.sources.deadreader import newest
from monitor.sources.gate import Rejection
from monitor.sources.keys import SCOPES, Keys, Sender
from monitor.sources.seen import Seen, fingerprint
from monitor.sources.spool import Entry, Position, SpoolReader, SpoolWriter, segments
from monitor.store.migrate import migrate_state
from monitor.store.state import State
from tests.builders import event
from tests.sources.live import stored_events

SENDER = Sender("k", "default")


def committer(data: Path, **spool: Any) -> Committer:
    made = Settings(data=data, spool=SpoolSettings(**spool))
    writer = SpoolWriter(made.spool_folder, made.spool.seal_bytes)
    return Committer(writer, Seen.load(made.spool_folder), DeadLetters(data / "dead"), made)


def entries(data: Path) -> list[tuple[Entry, bytes]]:
    reader = SpoolReader(data / "spool")
    found = []
    while records := reader.read():
        found += [(record.kind, record.payload) for record in records]
    return found


def test_requests_that_wait_together_share_one_batch_and_one_tick(tmp_path: Path) -> None:
    async def run() -> list[int]:
        made = committer(tmp_path)
        waiting = [asyncio.create_task(made.commit(SENDER, [event(at=n)], [])) for n in range(10)]
        await asyncio.sleep(0)
        made.start()
        answers = await asyncio.gather(*waiting)
        await made.drain()
        return answers

    assert asyncio.run(run()) == [0] * 10
    kinds = [kind for kind, _ in entries(tmp_path)]
    assert kinds[:2] == [Entry.EVENTS, Entry.TICK]
    assert kinds.count(Entry.EVENTS) == 1
    assert len(stored_events(tmp_path / "spool")) == 10


def test_a_repeat_in_the_same_group_is_told_to_its_own_sender(tmp_path: Path) -> None:
    async def run() -> list[int]:
        made = committer(tmp_path)
        waiting = [asyncio.create_task(made.commit(SENDER, [event(at=1), event(at=n)], [])) for n in (2, 3)]
        await asyncio.sleep(0)
        made.start()
        answers = await asyncio.gather(*waiting)
        await made.drain()
        return answers

    assert asyncio.run(run()) == [0, 1]
    assert len(stored_events(tmp_path / "spool")) == 3


@contextmanager
def refusing_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", refuse)
        yield


def test_what_the_disk_refused_is_no_repeat_when_it_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> int:
        made = committer(tmp_path)
        made.start()
        with refusing_disk(monkeypatch):
            with pytest.raises(Busy) as busy:
                await made.commit(SENDER, [event(at=1)], [])
            assert busy.value.status == 503
            assert busy.value.retry_after > 0
            assert not made.health()["ready"]
        duplicates = await made.commit(SENDER, [event(at=1)], [])
        assert made.health()["ready"]
        await made.drain()
        return duplicates

    assert asyncio.run(run()) == 0
    assert [row["event_id"] for row in stored_events(tmp_path / "spool")] == [event(at=1).event_id]


def test_what_cannot_be_written_fails_alone_and_its_neighbours_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = event(at=2)

    def picky(records: list[Any]) -> Any:
        if poison in records:
            raise ValueError("no column takes this")
        return arrow_batch(records)

    monkeypatch.setattr("monitor.sources.commit.arrow_batch", picky)

    async def run() -> list[Any]:
        made = committer(tmp_path)
        waiting = [
            asyncio.create_task(made.commit(SENDER, [one], [])) for one in (event(at=1), poison, event(at=3))
        ]
        await asyncio.sleep(0)
        made.start()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        await made.drain()
        return answers

    first, second, third = asyncio.run(run())
    assert (first, third) == (0, 0)
    assert isinstance(second, ValueError)
    assert [row["event_id"] for row in stored_events(tmp_path / "spool")] == [
        event(at=1).event_id,
        event(at=3).event_id,
    ]


def test_dead_letters_that_the_disk_refuses_take_no_answer_back_and_are_told(tmp_path: Path) -> None:
    async def run() -> None:
        made = committer(tmp_path)
        made.start()
        refusing = tmp_path / "dead"
        for path in refusing.iterdir():
            path.unlink()
        refusing.rmdir()
        assert await made.commit(SENDER, [event(at=1)], [Rejection(1, "bad", b"raw")]) == 0
        assert made.counters.dead_letters_lost == 1
        assert "dead letters" in made.pressure()["dead_letters_fault"]
        refusing.mkdir()
        assert await made.commit(SENDER, [], [Rejection(1, "bad", b"raw")]) == 0
        assert made.pressure()["dead_letters_fault"] is None
        await made.drain()

    asyncio.run(run())
    assert len(stored_events(tmp_path / "spool")) == 1


def test_what_was_refused_to_one_holds_up_no_answer_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = threading.Event()
    append = DeadLetters.append
    monkeypatch.setattr(DeadLetters, "append", lambda *found: slow.wait(30) and append(*found))

    async def run() -> None:
        made = committer(tmp_path)
        bad = asyncio.create_task(made.commit(SENDER, [event(at=1)], [Rejection(1, "bad", b"raw")]))
        good = asyncio.create_task(made.commit(Sender("other", "default"), [event(at=2)], []))
        await asyncio.sleep(0)
        made.start()
        assert await good == 0
        assert not bad.done()
        slow.set()
        assert await bad == 0
        await made.drain()

    asyncio.run(run())
    assert [kept.letter.reason for kept in newest(tmp_path / "dead")] == ["bad"]


def test_letters_that_had_to_go_are_counted_in_the_metrics(tmp_path: Path) -> None:
    async def run() -> dict[str, float]:
        made = Settings(data=tmp_path)
        writer = SpoolWriter(made.spool_folder, made.spool.seal_bytes)
        dead = DeadLetters(tmp_path / "dead", max_bytes=20_000)
        found = Committer(writer, Seen.load(made.spool_folder), dead, made)
        found.start()
        await found.commit(SENDER, [], [Rejection(n, "bad", b"raw" * 20) for n in range(300)])
        await found.drain()
        assert dead.count() + dead.evicted == 300
        return found.metrics()

    assert asyncio.run(run())["edge_dead_letters_evicted_total"] > 100


def test_refused_records_take_their_turn_like_good_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    append = DeadLetters.append

    def counted(dead: DeadLetters, letters: Iterable[DeadLetter]) -> None:
        found = list(letters)
        kept.append(len(found))
        append(dead, found)

    monkeypatch.setattr(DeadLetters, "append", counted)

    async def run() -> None:
        made = committer(tmp_path)
        waiting = [
            asyncio.create_task(made.commit(SENDER, [], [Rejection(n, "bad", b"{") for n in range(4_000)]))
            for _ in range(6)
        ]
        await asyncio.sleep(0)
        made.start()
        await asyncio.gather(*waiting)
        await made.drain()

    asyncio.run(run())
    assert sum(kept) == 24_000
    assert max(kept) <= 12_000


def test_what_the_process_begins_with_comes_first_though_the_disk_was_full_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        made = committer(tmp_path)
        made.begin_with("rules", {"hash": "h"})
        with refusing_disk(monkeypatch):
            made.start()
            with pytest.raises(Busy):
                await made.commit(SENDER, [event(at=1)], [])
        await made.commit(SENDER, [event(at=2)], [])
        await made.drain()

    asyncio.run(run())
    kinds = [kind for kind, _ in entries(tmp_path) if kind is not Entry.TICK]
    assert kinds == [Entry.CONTROL, Entry.EVENTS]


def test_events_are_refused_while_the_disk_must_be_left_to_others_and_controls_are_not(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        made = committer(tmp_path, min_free_bytes=1 << 60)
        made.start()
        with pytest.raises(Busy, match="min_free_bytes") as busy:
            await made.commit(SENDER, [event(at=1)], [])
        assert busy.value.status == 503
        await made.control("verdict", {"alert": "a1"})
        assert not made.health()["ready"]
        pressure = made.pressure()
        assert pressure["refused_full_total"] == pressure["by_key"]["k"]["refused_full_total"] == 1
        await made.drain()

    asyncio.run(run())
    assert Entry.CONTROL in [kind for kind, _ in entries(tmp_path)]


def test_the_size_of_the_spool_is_known_without_looking(tmp_path: Path) -> None:
    async def run() -> None:
        made = committer(tmp_path, seal_bytes=2000)
        made.start()
        for n in range(20):
            await made.commit(SENDER, [event(at=n)], [])
        made.room.trim(Position(4, 20), 0)
        folder = tmp_path / "spool"
        on_disk = sum(path.stat().st_size for path in folder.glob("*.segment"))
        assert made.room.bytes == on_disk
        await made.drain()

    asyncio.run(run())


def test_a_control_is_durable_when_it_is_answered_and_keeps_its_place(tmp_path: Path) -> None:
    async def run() -> None:
        made = committer(tmp_path)
        made.start()
        await made.commit(SENDER, [event(at=1)], [])
        await made.control("verdict", {"alert": "a1"})
        await made.commit(SENDER, [event(at=2)], [])
        kinds = [kind for kind, _ in entries(tmp_path) if kind is not Entry.TICK]
        assert kinds == [Entry.EVENTS, Entry.CONTROL, Entry.EVENTS]
        await made.drain()

    asyncio.run(run())
    (control,) = [payload for kind, payload in entries(tmp_path) if kind is Entry.CONTROL]
    assert msgspec.json.decode(control) == {"kind": "verdict", "alert": "a1"}


def test_ticks_come_while_nothing_else_does_and_never_go_back(tmp_path: Path) -> None:
    async def run() -> None:
        made = committer(tmp_path)
        made.start()
        async with asyncio.timeout(10):
            while len(entries(tmp_path)) < 3:
                await asyncio.sleep(0.05)
        await made.drain()

    asyncio.run(run())
    ticks = [int.from_bytes(payload, "little", signed=True) for kind, payload in entries(tmp_path)]
    assert ticks == sorted(ticks)


def test_draining_answers_what_waits_seals_and_takes_nothing_more(tmp_path: Path) -> None:
    async def run() -> None:
        made = committer(tmp_path)
        made.start()
        waiting = asyncio.create_task(made.commit(SENDER, [event(at=1)], []))
        await asyncio.sleep(0)
        await made.drain()
        assert await waiting == 0
        with pytest.raises(Busy):
            await made.commit(SENDER, [event(at=2)], [])

    asyncio.run(run())
    assert len(stored_events(tmp_path / "spool")) == 1


def test_trimming_takes_only_what_lies_before_the_oldest_position(tmp_path: Path) -> None:
    async def run() -> None:
        made = committer(tmp_path, seal_bytes=1)
        made.start()
        for n in range(5):
            await made.commit(SENDER, [event(at=n)], [])
        folder = tmp_path / "spool"
        assert made.room.trim(Position(1, 20), 0) == 0
        assert made.room.trim(Position(4, 20), 1 << 30) == 0
        assert made.room.trim(Position(4, 20), 0) > 0
        assert segments(folder)[0] == 4
        assert made.room.trim(Position(99, 20), 0) > 0
        assert len(segments(folder)) == 1
        await made.drain()

    asyncio.run(run())


def test_a_conflict_whose_id_is_taken_too_is_kept_all_the_same() -> None:
    seen = Seen()
    harmless, harmful = event(at=1, event_id="e", tool_name="read"), event(at=1, event_id="e", tool_name="rm")
    taken = f"e#conflict-{fingerprint(harmful).hex()}"
    seen.sort([harmless, event(at=1, event_id=taken, tool_name="ls")])
    seen.settle()
    found = seen.sort([harmful])
    assert (len(found.fresh), found.conflicts, found.duplicates) == (1, 1, 0)
    assert found.fresh[0].attributes["watchkeeper.conflict"] == "e"
    seen.settle()
    again = seen.sort([event(at=1, event_id="e", tool_name="rm")])
    assert (len(again.fresh), again.conflicts, again.duplicates) == (0, 0, 1)


def test_a_segment_ends_before_what_it_unpacks_to_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "UNPACKED_BYTES", 100_000)

    async def run() -> int:
        made = committer(tmp_path)
        made.start()
        for n in range(8):
            await made.commit(SENDER, [event(at=n, tool_result="a" * 60_000)], [])
        await made.drain()
        return sum(path.stat().st_size for path in (tmp_path / "spool").glob("*.segment"))

    assert asyncio.run(run()) < 4 * 60_000
    assert len(segments(tmp_path / "spool")) == 4


def test_a_segment_without_events_ends_too_so_that_an_idle_spool_can_be_trimmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "IDLE_SECONDS", 0.01)

    async def run() -> None:
        made = committer(tmp_path)
        made.start()
        for n in range(3):
            await made.control("verdict", {"id": n})
            await asyncio.sleep(0.02)
        await made.drain()

    asyncio.run(run())
    assert len(segments(tmp_path / "spool")) >= 3


def test_the_window_of_repeats_is_bounded_and_survives_a_restart(tmp_path: Path) -> None:
    seen = Seen(capacity=100)
    for n in range(1000):
        seen.sort([event(at=n)])
        seen.settle()
    assert 100 <= len(seen) <= 200
    assert seen.sort([event(at=950)]).duplicates == 1
    assert seen.sort([event(at=1)]).duplicates == 0


def test_the_window_is_read_back_from_events_that_another_version_wrote(tmp_path: Path) -> None:
    record = event(at=1, attributes={"b": "2", "a": "1", "watchkeeper.replay": "true"}, cost_usd=1.5)
    writer = SpoolWriter(tmp_path)
    writer.append([(Entry.EVENTS, to_bytes(arrow_batch([record])))])
    seen = Seen.load(tmp_path)
    again = event(at=1, attributes={"a": "1", "b": "2", "watchkeeper.replay": "true"}, cost_usd=1.5)
    assert seen.sort([again]) == ([], [], 1, 0)


def test_a_fingerprint_covers_what_the_producer_sent_and_nothing_else() -> None:
    base = fingerprint(event(at=1, tool_name="x"))
    assert fingerprint(event(at=1, tool_name="x", identity="bound", event_id="other")) == base
    for other in (
        event(at=2, tool_name="x"),
        event(at=1, tool_name="y"),
        event(at=1, tool_name="x", attributes={"a": ""}),
    ):
        assert fingerprint(other) != base


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    migrate_state(tmp_path / "state.db")
    state = State(tmp_path / "state.db")
    yield Keys(state)
    state.close()


def test_a_key_gives_its_rights_and_its_secret_is_kept_nowhere(keys: Keys, tmp_path: Path) -> None:
    key_id, secret = keys.create("fleet", "acme", ["a", "b"], ["ingest", "replay"])
    sender = keys.authenticate(f"Bearer {secret}")
    assert sender == Sender(key_id, "acme", ("a", "b"), frozenset({"ingest", "replay"}), name="fleet")
    assert keys.authenticate(f"bearer  {secret} ") == sender
    for wrong in (None, "", "Bearer", f"Basic {secret}", secret, f"Bearer {secret}x"):
        assert keys.authenticate(wrong) is None
    assert not any(secret.encode() in path.read_bytes() for path in tmp_path.iterdir())
    assert secret not in str(keys.list())


def test_an_unknown_scope_is_told(keys: Keys) -> None:
    with pytest.raises(ValueError, match="ingest, replay, read, triage, respond, audit, admin"):
        keys.create("x", scopes=["everything"])


def test_the_local_key_is_replaced_at_each_start(keys: Keys) -> None:
    first, second = keys.renew_local(), keys.renew_local()
    assert keys.authenticate(f"Bearer {first}") is None
    sender = keys.authenticate(f"Bearer {second}")
    assert sender is not None
    assert sender.scopes == set(SCOPES)
    assert [key["revoked_at"] is None for key in keys.list()] == [False, True]


def test_rejections_are_kept_with_their_request(tmp_path: Path) -> None:
    async def run() -> None:
        made = committer(tmp_path)
        made.start()
        await made.commit(SENDER, [], [Rejection(4, "bad", b"raw")])
        await made.drain()

    asyncio.run(run())
    (kept,) = [one.letter for one in newest(tmp_path / "dead")]
    assert (kept.key_id, kept.index, kept.reason, kept.raw) == ("k", 4, "bad", "raw")
