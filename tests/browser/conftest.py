"""One browser and one event store to a module, one seeded console to a test.

Not to the whole run: one process opens one embedded store at a time, and Playwright
keeps an event loop running for as long as it is open.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from monitor.store.clickhouse import EventStore
from tests.browser.chromium import Visit, chromium, chromium_path, serving, visiting
from tests.web.seeding import Stand, console, open_store, seed


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    if chromium_path() is None:
        pytest.skip("no Chromium here: install the package chromium, or set CHROMIUM to its path")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventStore]:
    before = (tempfile.tempdir, os.environ.get("TMPDIR", tempfile.gettempdir()))
    opened = open_store(tmp_path_factory.mktemp("store"))
    yield opened
    opened.close()
    tempfile.tempdir, os.environ["TMPDIR"] = before


@dataclass(frozen=True)
class Site:
    """A console that listens, with its parts."""

    url: str
    stand: Stand


@pytest.fixture
def site(tmp_path: Path, store: EventStore) -> Iterator[Site]:
    with console(tmp_path / "data", store) as stand:
        seed(stand, store)
        with serving(stand.app) as url:
            yield Site(url, stand)


Arrive = Callable[..., AbstractContextManager[Visit]]


@pytest.fixture
def arrive(chrome: Browser, site: Site) -> Arrive:
    """Begin a visit; options as for ``visiting``."""

    def begin(**options: Any) -> AbstractContextManager[Visit]:
        return visiting(chrome, site.url, site.stand, **options)

    return begin


@pytest.fixture
def visit(arrive: Arrive) -> Iterator[Visit]:
    """A signed-in visit that may not end with a console error or a request to another host."""
    with arrive() as begun:
        yield begun
        assert begun.faults == []
