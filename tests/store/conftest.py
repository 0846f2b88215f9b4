"""Stores on fresh folders."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.settings import Settings, StoreSettings
from monitor.store.clickhouse import EventStore
from monitor.store.migrate import migrate_state
from monitor.store.state import State
from tests.clickhouse_server import ClickHouse, clickhouse


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    migrate_state(tmp_path / "state.db")
    opened = State(tmp_path / "state.db")
    yield opened
    opened.close()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    # opening a store points temporary files at its data; both come back afterwards
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    monkeypatch.setenv("TMPDIR", os.environ.get("TMPDIR", tempfile.gettempdir()))
    return Settings(data=tmp_path)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """One real server for all tests, each with a database of its own."""
    with clickhouse(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.server)])
def store(request: pytest.FixtureRequest, settings: Settings) -> Iterator[EventStore]:
    """The store on chDB, and on a real ClickHouse server."""
    if request.param == "server":
        server: ClickHouse = request.getfixturevalue("server")
        database = f"db_{uuid.uuid4().hex}"
        settings = settings.model_copy(update={"store": StoreSettings(**server.settings(database))})
    opened = EventStore.open(settings)
    yield opened
    opened.close()


@pytest.fixture
def embedded(settings: Settings) -> Iterator[EventStore]:
    """The store on chDB alone."""
    opened = EventStore.open(settings)
    yield opened
    opened.close()
