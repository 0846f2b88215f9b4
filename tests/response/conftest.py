"""A state database, alerts and the desk for the tests of the response."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.store.migrate import migrate_state
from monitor.store.state import State


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    migrate_state(tmp_path / "state.db")
    opened = State(tmp_path / "state.db")
    yield opened
    opened.close()
