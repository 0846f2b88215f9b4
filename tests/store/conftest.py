"""Stores on fresh folders."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.settings import Settings
from monitor.store.clickhouse import EventStore
from monitor.store.migrate import migrate_state
from monitor.store.state import State


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


@pytest.fixture
def store(settings: Settings) -> Iterator[EventStore]:
    opened = EventStore.open(settings)
    yield opened
    opened.close()
