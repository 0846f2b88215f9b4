"""`watchkeeper bench console` measures a console that shows what was filled in."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.browser.chromium import chromium_path


@pytest.mark.browser
def test_it_measures_every_page_and_a_browser() -> None:
    if chromium_path() is None:
        pytest.skip("no Chromium here: install the package chromium, or set CHROMIUM to its path")
    command = [sys.executable, "-m", "monitor.cli", "bench", "console", "--json"]
    done = subprocess.run(
        [*command, "--alerts", "300", "--events", "4000"], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found.pop("alerts"), found.pop("events")) == (300, 4000)
    assert {"queue_ms", "session_ms", "drawer_ms", "rows_visible_ms", "live_update_ms"} <= set(found)
    for name, took in found.items():
        assert 0 < took["p50"] <= took["p95"] <= took["max"] < 60_000, name
