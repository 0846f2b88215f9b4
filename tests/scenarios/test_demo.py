"""The demo, as the README promises it: every story caught, nobody accused wrongly, the stop proven."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def demo(folder: Path, seed: int) -> dict[str, object]:
    """Run one seed to its end; its JSON. Fails where the exit code is not 0."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "monitor.cli", "--data", str(folder / "demo")),
            *("demo", "--once", "--json", "--seed", str(seed)),
        ],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stdout}\n{done.stderr}"
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(420)
def test_the_demo_tells_its_story_to_the_end(tmp_path: Path) -> None:
    found = demo(tmp_path, seed=1)
    assert set(found) == {
        *("events", "stories", "kill", "false_alerts", "healthy_sessions", "events_per_second"),
    }
    names = {story["name"] for story in found["stories"]}  # type: ignore[attr-defined]
    assert names == {"policy-blocks", "secret-exfiltration", "silent-model-change", "executed-after-denial"}
    kill = found["kill"]
    assert isinstance(kill, dict)
    assert kill["state"] == "contained"
    assert kill["confirm_to_silence_ms"] > 0
    assert found["false_alerts"] == 0
    assert isinstance(found["healthy_sessions"], int)
    assert found["healthy_sessions"] > 10


@pytest.mark.slow
@pytest.mark.timeout(6000)
def test_nineteen_of_twenty_seeds_pass(tmp_path: Path) -> None:
    failed = {}
    for seed in range(1, 21):
        try:
            demo(tmp_path / str(seed), seed)
        except AssertionError as error:
            failed[seed] = str(error)
    assert len(failed) <= 1, failed
