from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import DatabaseError

from monitor.store.migrate import SCRIPTS, MigrationError, migrate_state
from monitor.store.state import Alert, AlertChange, ApiKey, Base, Control, Process, State, WebSession

WRITES = 500
REVISIONS = ["0001", "0002", "0003", "0004", "0005", "0006"]


def test_the_migrated_schema_is_the_schema_of_the_code(state: State) -> None:
    with state.schema_change() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    assert migrate_state(file) == REVISIONS
    assert migrate_state(file) == []


def test_a_percent_sign_in_the_path_is_only_a_percent_sign(tmp_path: Path) -> None:
    assert migrate_state(tmp_path / "100%s" / "state.db") == REVISIONS


def test_the_state_file_and_its_companions_are_their_owners_alone(state: State) -> None:
    with state.write() as session:
        session.add(Control(kind="verdict", payload={}, actor="ana", created_at=1))
        session.flush()
        files = sorted(state.file.parent.glob("state.db*"))
        assert len(files) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    file.touch(0o644)
    migrate_state(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_of_a_newer_version_is_refused_with_the_remedy(state: State) -> None:
    with state.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(MigrationError, match="newer version of Watchkeeper"):
        migrate_state(state.file)


def test_a_broken_migration_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE processes (name TEXT)")
    with pytest.raises(DatabaseError):
        migrate_state(file)
    with sqlite3.connect(file) as other:
        assert other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [
            ("processes",)
        ]


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE alert_changes SET reason = 'nothing happened'",
        "DELETE FROM alert_changes",
        "INSERT OR REPLACE INTO alert_changes (id, alert_id, at, actor, field, reason) "
        "SELECT id, alert_id, at, 'eve', field, reason FROM alert_changes",
    ],
)
def test_history_cannot_be_rewritten(state: State, alert: Alert, tampering: str) -> None:
    with state.write() as session:
        session.add(alert)
        session.flush()
        session.add(AlertChange(alert_id=alert.id, at=1, actor="ana", field="status", reason="seen"))
    with pytest.raises(DatabaseError, match="alert_changes is append-only"), state.write() as session:
        session.execute(text(tampering))
    with state.read() as session:
        assert [change.actor for change in session.scalars(select(AlertChange))] == ["ana"]


@pytest.mark.parametrize("verb", ["UPDATE", "DELETE"])
def test_the_history_of_orders_is_guarded_too(state: State, verb: str) -> None:
    with state.read() as session:
        triggers = session.scalars(
            text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'order_changes'")
        )
        assert any(f"BEFORE {verb}" in sql for sql in triggers)


@pytest.fixture
def alert() -> Alert:
    return Alert(
        id="a_1",
        dedup_key="k",
        detector="sigma",
        rule_id="r",
        rule_version="1",
        title="t",
        reason="r",
        level="low",
        learned=False,
        replayed=False,
        tenant="default",
        agent_id="a",
        identity="declared",
        tags=[],
        runbook=[],
        evidence={},
        event_ids=[],
        first_event_at=1,
        last_event_at=1,
        created_at=1,
        updated_at=1,
    )


def test_a_write_takes_the_lock_before_it_reads(state: State) -> None:
    statements: list[str] = []
    event.listen(
        state._engine, "before_cursor_execute", lambda _c, _cursor, sql, *_rest: statements.append(sql)
    )
    with state.write() as session:
        session.scalars(select(Process)).all()
    with state.read() as session:
        session.scalars(select(Process)).all()
    assert [sql for sql in statements if sql.startswith("BEGIN")] == ["BEGIN IMMEDIATE", "BEGIN DEFERRED"]


def _count_up(file: Path) -> None:
    state = State(file)
    for _ in range(WRITES):
        with state.write() as session:
            row = session.get_one(Process, "counter")
            seen = row.pid
            session.execute(update(Process).values(pid=seen + 1))
    state.close()


def test_no_update_is_lost_between_two_processes_and_two_threads(state: State) -> None:
    with state.write() as session:
        session.add(Process(name="counter", pid=0, started_at=0, beat_at=0, metrics={}, detail={}))
    spawn = multiprocessing.get_context("spawn")
    workers = [
        *(spawn.Process(target=_count_up, args=(state.file,)) for _ in range(2)),
        *(threading.Thread(target=_count_up, args=(state.file,)) for _ in range(2)),
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
    with state.read() as session:
        assert session.get_one(Process, "counter").pid == 4 * WRITES


def test_an_error_in_a_write_undoes_all_of_it(state: State) -> None:
    def break_off() -> None:
        with state.write() as session:
            session.add(Control(kind="verdict", payload={}, actor="ana", created_at=1))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    with state.read() as session:
        assert session.scalars(select(Control)).all() == []


def test_a_key_of_before_keeps_its_rights_and_a_session_ends(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    state = State(file)
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    with state.schema_change() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        columns = "id, name, secret_hash, tenant, agents, scopes, created_at"
        row = "'key_1', 'soar', 'x', 'default', '[]', '[\"read\", \"operate\"]', 1"
        connection.exec_driver_sql(f"INSERT INTO api_keys ({columns}) VALUES ({row})")
        connection.exec_driver_sql("INSERT INTO web_sessions VALUES ('h', 'admin', 'c', 1, 9000000000000000)")
    state.close()
    assert migrate_state(file) == REVISIONS[1:]
    state = State(file)
    with state.read() as session:
        assert session.get_one(ApiKey, "key_1").scopes == ["read", "triage", "respond"]
        assert session.scalars(select(WebSession)).all() == []
    state.close()
