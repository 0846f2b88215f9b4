"""A console on a fresh state database, and browsers of two kinds: signed in and not."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from monitor.sources.keys import Keys
from monitor.store.clickhouse import EventStore
from tests.people import link
from tests.web.seeding import Stand, console, open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventStore]:
    """One event store for a module; opening it moves temporary files, which come back afterwards."""
    before = (tempfile.tempdir, os.environ.get("TMPDIR"))
    opened = open_store(tmp_path_factory.mktemp("store"))
    yield opened
    opened.close()
    tempfile.tempdir = before[0]
    if before[1] is None:
        os.environ.pop("TMPDIR", None)
    else:
        os.environ["TMPDIR"] = before[1]


@pytest.fixture
def stand(tmp_path: Path, store: EventStore) -> Iterator[Stand]:
    with console(tmp_path / "data", store) as made:
        yield made


@pytest.fixture
def stranger(stand: Stand) -> TestClient:
    return TestClient(stand.app, base_url="http://127.0.0.1", follow_redirects=False)


class Browser(TestClient):
    """A signed-in browser that sends its CSRF token like the console's own script."""

    csrf: str

    def change(self, **form: object) -> object:
        """POST a change as htmx does."""
        headers = {"X-CSRF-Token": self.csrf, "HX-Request": "true"}
        return self.post("/alerts/changes", data=form, headers=headers)


@pytest.fixture
def browser(stand: Stand) -> Browser:
    client = Browser(stand.app, base_url="http://127.0.0.1", follow_redirects=False)
    answer = client.post("/login", data={"token": link(stand.state, "ana")})
    assert answer.status_code == 303
    found = re.search(r'name="csrf" content="([^"]+)"', client.get("/status").text)
    assert found
    client.csrf = found[1]
    return client


def key(stand: Stand, *scopes: str, tenant: str = "default") -> dict[str, str]:
    """Headers with a fresh key."""
    _, secret = Keys(stand.state).create("test", tenant=tenant, scopes=scopes)
    return {"Authorization": f"Bearer {secret}"}
