from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from monitor.events import COLUMNS, arrow_batch
from monitor.settings import Settings
from monitor.store import schema
from monitor.store.clickhouse import EventStore, StoreError, placed
from monitor.store.migrate import MigrationError
from monitor.store.queries import Readers
from tests.builders import START, event

ARRIVED = datetime(2026, 3, 2, 9, 5, tzinfo=UTC)


def rows(*events: Any, segment: int = 1) -> pa.Table:
    return placed(pa.table(arrow_batch(events)), segment)


def arrived(**columns: Any) -> Any:
    return event(**{"ingested_at": ARRIVED, **columns})


@pytest.fixture
def ask(store: EventStore) -> Iterator[Callable[[Callable[[Readers], Awaitable[Any]]], Any]]:
    """Runs one question against a pool of readers."""
    readers = Readers(store)

    def run(question: Callable[[Readers], Awaitable[Any]]) -> Any:
        async def once() -> Any:
            return await question(readers)

        return asyncio.run(once())

    yield run
    readers.close()


Ask = Callable[[Callable[[Readers], Awaitable[Any]]], Any]


def test_the_migrations_give_exactly_the_columns_of_the_schema(store: EventStore) -> None:
    found = store.writer.query(
        "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = 'events' "
        "ORDER BY position"
    ).result_rows
    expected = [(column.name, column.clickhouse) for column in COLUMNS]
    assert list(map(tuple, found)) == [*expected, ("segment", "UInt64"), ("row", "UInt32")]


def test_migrating_twice_changes_nothing(store: EventStore) -> None:
    assert schema.migrate_events(store.writer) == []


def test_an_edited_migration_is_refused(
    store: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(schema.SCRIPTS, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "0001_events.sql").open("a") as script:
        script.write("-- edited\n")
    monkeypatch.setattr(schema, "SCRIPTS", tmp_path)
    with pytest.raises(MigrationError, match="0001_events was edited"):
        schema.migrate_events(store.writer)


def test_a_database_of_a_newer_version_is_refused(store: EventStore) -> None:
    store.writer.insert("migrations", [["9999_future", ""]], column_names=["name", "sha256"])
    with pytest.raises(MigrationError, match=r"9999_future.*newer version"):
        schema.migrate_events(store.writer)


def test_an_event_comes_back_as_it_was_stored(store: EventStore, ask: Ask) -> None:
    sent = arrived(
        event_id="e1",
        amount=12.5,
        input_tokens=2**62,
        data_accessed=["a", "b"],
        attributes={"k": "v", "": "ü\x00\n\t'\\"},
        tool_args='{"x": "\\u0000"}',
        approval_expires_at=START + timedelta(microseconds=1),
    )
    store.insert(rows(sent, segment=7), "t")
    (row,) = ask(lambda readers: readers.events_by_id(["e1"]))
    expected = {name: getattr(sent, name) for name in (column.name for column in COLUMNS)}
    expected |= {
        "timestamp": "2026-03-02T09:00:00.000000Z",
        "ingested_at": "2026-03-02T09:05:00.000000Z",
        "approval_expires_at": "2026-03-02T09:00:00.000001Z",
        "segment": 7,
        "row": 0,
    }
    assert row == expected


def test_the_same_token_stores_once(store: EventStore, ask: Ask) -> None:
    table = rows(*(arrived(at=n) for n in range(10)))
    assert store.insert(table, "spool:1") == 10
    assert store.insert(table, "spool:1") == 10
    assert ask(lambda readers: readers.count()) == 10


def test_equal_rows_under_two_tokens_are_two_segments(store: EventStore, ask: Ask) -> None:
    store.insert(rows(arrived()), "spool:1")
    store.insert(rows(arrived(), segment=2), "spool:2")
    assert ask(lambda readers: readers.count()) == 2


def test_a_segment_across_a_change_of_month_stores_once(store: EventStore, ask: Ask) -> None:
    table = rows(arrived(), arrived(at=1, ingested_at=ARRIVED + timedelta(days=31)), event(at=2))
    store.insert(table, "spool:1")
    store.insert(table, "spool:1")
    assert ask(lambda readers: readers.count()) == 3


def test_a_table_in_many_chunks_stores_once(store: EventStore, ask: Ask) -> None:
    table = pa.concat_tables([rows(arrived(agent_id=f"agent-{n}")) for n in range(20)])
    store.insert(table, "spool:1")
    store.insert(table, "spool:1")
    assert ask(lambda readers: readers.count()) == 20


def test_columns_that_nobody_filled_come_back_empty(store: EventStore, ask: Ask) -> None:
    store.insert(rows(arrived(event_id="bare", tenant=None, session_id=None)), "t")
    (row,) = ask(lambda readers: readers.events_by_id(["bare"]))
    empty = {name: value for name, value in row.items() if value in (None, [], {})}
    assert empty.pop("attributes") == {}
    assert empty.pop("data_accessed") == []
    assert {"tenant", "session_id", "tool_name", "amount", "approval_expires_at"} <= empty.keys()
    assert set(empty.values()) == {None}


def test_a_table_of_no_rows_is_nothing_to_do(store: EventStore) -> None:
    assert store.insert(rows(arrived()).slice(0, 0), "spool:1") == 0


def test_a_table_of_other_columns_is_refused(store: EventStore) -> None:
    with pytest.raises(StoreError, match="1 events were not stored"):
        store.insert(pa.table({"no_such_column": ["x"]}), "spool:1")


def test_a_liars_times_are_kept_and_open_no_partitions(store: EventStore, ask: Ask) -> None:
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    months = [datetime(1000 + n // 12, 1 + n % 12, 1, tzinfo=UTC) for n in range(3000)]
    times = [first, last, *months]
    store.insert(rows(*(arrived(event_id=f"e{n}", timestamp=t) for n, t in enumerate(times))), "t")
    assert ask(lambda readers: readers.count()) == len(times)
    found = ask(lambda readers: readers.events_by_id(["e0", "e1"]))
    assert [row["timestamp"] for row in found] == [
        "0001-01-01T00:00:00.000000Z",
        "9999-12-31T23:59:59.999999Z",
    ]
    partitions = store.writer.query(
        "SELECT DISTINCT partition FROM system.parts WHERE table = 'events' AND database = currentDatabase()"
    )
    assert list(map(tuple, partitions.result_rows)) == [("202603",)]


def test_a_session_is_read_in_order_and_only_its_tenants(store: EventStore, ask: Ask) -> None:
    store.insert(
        rows(
            arrived(at=2, event_id="second"),
            arrived(at=1, event_id="first"),
            arrived(at=3, event_id="third"),
            arrived(at=1, event_id="other session", session_id="s2"),
            arrived(at=1, event_id="other tenant", tenant="acme"),
        ),
        "t",
    )
    found = ask(lambda readers: readers.session_events("default", "s1", 2))
    assert [row["event_id"] for row in found] == ["first", "second"]


@pytest.mark.parametrize(
    "name",
    [
        "' OR 1 = 1 --",
        "\\' OR 1 = 1 --",
        "x'; DROP TABLE events; --",
        "tab\tnewline\nnul\x00",
        "{tenant:String}",
    ],
)
def test_a_hostile_session_name_is_only_a_name(store: EventStore, ask: Ask, name: str) -> None:
    store.insert(rows(arrived(event_id="bait"), arrived(event_id="hostile", session_id=name)), "t")
    found = ask(lambda readers: readers.session_events("default", name, 10))
    assert [row["event_id"] for row in found] == ["hostile"]
    found = ask(lambda readers: readers.events_by_id([name, "bait"]))
    assert [row["event_id"] for row in found] == ["bait"]


def test_the_newest_events_come_first(store: EventStore, ask: Ask) -> None:
    store.insert(rows(*(arrived(at=n, event_id=f"e{n}", agent_id=f"agent-{n % 3}") for n in range(9))), "t")
    assert [row["event_id"] for row in ask(lambda readers: readers.newest(3))] == ["e8", "e7", "e6"]


def test_events_are_counted_by_minute_of_arrival(store: EventStore, ask: Ask) -> None:
    minutes = [-1, 0, 0, 2]
    store.insert(rows(*(arrived(at=m, ingested_at=ARRIVED + timedelta(minutes=m)) for m in minutes)), "t")
    since = int(ARRIVED.timestamp()) * 1_000_000
    assert ask(lambda readers: readers.events_per_minute(since)) == [
        {"minute": "2026-03-02T09:05:00.000000Z", "events": 2},
        {"minute": "2026-03-02T09:07:00.000000Z", "events": 1},
    ]


def test_agents_are_listed_with_what_was_seen_of_them(store: EventStore, ask: Ask) -> None:
    store.insert(
        rows(arrived(at=0), arrived(at=60, session_id="s2"), arrived(at=0, agent_id="mail-agent")), "t"
    )
    busiest, other = ask(lambda readers: readers.agents())
    assert busiest == {
        "tenant": "default",
        "agent_id": "invoice-agent",
        "events": 2,
        "sessions": 2,
        "first_seen": "2026-03-02T09:00:00.000000Z",
        "last_seen": "2026-03-02T09:01:00.000000Z",
    }
    assert other["agent_id"] == "mail-agent"


def test_readers_cannot_write(store: EventStore, ask: Ask) -> None:
    store.insert(rows(arrived()), "t")
    with pytest.raises(Exception, match="readonly"):
        ask(lambda readers: readers.select("INSERT INTO events (event_id) VALUES ('x')"))
    assert ask(lambda readers: readers.count()) == 1


def test_many_questions_at_once_are_all_answered(store: EventStore, ask: Ask) -> None:
    store.insert(rows(*(arrived(at=n) for n in range(50))), "t")

    async def all_at_once(readers: Readers) -> list[int]:
        return await asyncio.gather(*(readers.count() for _ in range(20)))

    assert ask(all_at_once) == [50] * 20


def test_a_second_process_is_told_who_holds_the_store(embedded: EventStore, settings: Settings) -> None:
    program = (
        "import sys, pathlib\n"
        "from monitor.settings import Settings\n"
        "from monitor.store.clickhouse import EventStore, StoreError\n"
        "try:\n    EventStore.open(Settings(data=pathlib.Path(sys.argv[1])))\n"
        "except StoreError as error:\n    print(error)\n"
    )
    second = subprocess.run(
        [sys.executable, "-c", program, str(settings.data)], capture_output=True, text=True, timeout=60
    )
    assert f"is held by process {os.getpid()}" in second.stdout, second.stderr
    assert "stop it first" in second.stdout


def test_an_unreachable_server_is_named_without_its_password() -> None:
    settings = Settings(store={"dsn": "clickhouse://ana:hunter2@127.0.0.1:1/events"})
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1 .* nobody answers") as caught:
        EventStore.open(settings)
    assert "hunter2" not in str(caught.value)


def test_inserts_pass_through_a_folder_beside_the_data(embedded: EventStore, settings: Settings) -> None:
    embedded.insert(rows(arrived()), "t")
    assert Path(tempfile.gettempdir()) == settings.data / "tmp"
    assert list((settings.data / "tmp").iterdir()) == []


SEGMENTS = 60
PER_SEGMENT = 2_000


def segment_rows(number: int) -> pa.Table:
    return rows(*(arrived(at=n, event_id=f"{number}-{n}") for n in range(PER_SEGMENT)), segment=number)


def _store_segments(data: Path, first: int, acknowledged: Any) -> None:
    store = EventStore.open(Settings(data=data))
    for number in range(first, SEGMENTS + 1):
        store.insert(segment_rows(number), f"spool:{number}")
        acknowledged.send(number)
    store.close()


def test_no_row_is_lost_or_doubled_when_the_process_is_killed(settings: Settings) -> None:
    spawn = multiprocessing.get_context("spawn")
    done = 0
    for until in (5, 20, 35):
        receiver, sender = spawn.Pipe(duplex=False)
        # goes back before what was acknowledged, as a lost position would
        child = spawn.Process(target=_store_segments, args=(settings.data, max(1, done - 3), sender))
        child.start()
        while done < until:
            assert receiver.poll(60), "the child stopped storing"
            done = receiver.recv()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        while receiver.poll(0):
            done = receiver.recv()

    store = EventStore.open(settings)
    stored = store.writer.query("SELECT segment, count() FROM events GROUP BY segment").result_rows
    assert {number for number, _ in stored} >= set(range(1, done + 1))
    assert {count for _, count in stored} == {PER_SEGMENT}
    for number in range(1, SEGMENTS + 1):
        store.insert(segment_rows(number), f"spool:{number}")
    stored = store.writer.query(
        "SELECT segment, count() FROM events GROUP BY segment ORDER BY segment"
    ).result_rows
    store.close()
    assert list(map(tuple, stored)) == [(number, PER_SEGMENT) for number in range(1, SEGMENTS + 1)]
