"""Commands as a user types them, where no daemon is needed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detectors.drift import Drift
from detectors.sigma.load import load_texts
from monitor.events import rule_fields
from monitor.faults import EXPECTED
from monitor.scan import scan
from monitor.settings import Settings
from monitor.sources import file as recorded_files
from monitor.sources.gate import Rejection
from tests.detectors.streams import DAY, in_order, run, sessions
from tests.scenarios.test_daemon import denials, line


def watchkeeper(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monitor.cli", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    file = tmp_path / "recorded.ndjson"
    file.write_bytes(b"\n".join([*denials("pushing"), line(at=99, session_id="calm")]) + b"\n")
    return file


def test_scan_judges_a_file_with_no_daemon(recorded: Path, tmp_path: Path) -> None:
    done = watchkeeper("scan", str(recorded), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    matches = [json.loads(raw) for raw in done.stdout.splitlines()]
    assert any(match["session_id"] == "pushing" and match["level"] == "high" for match in matches)
    assert not [match for match in matches if match["session_id"] == "calm"]
    assert {"rule_id", "title", "level", "event_ids", "group", "timestamp"} <= set(matches[0])


def test_scan_prints_the_same_twice(recorded: Path, tmp_path: Path) -> None:
    first, second = (watchkeeper("scan", str(recorded), "--json", cwd=tmp_path).stdout for _ in range(2))
    assert first == second


def test_scan_says_which_line_it_could_not_judge(recorded: Path, tmp_path: Path) -> None:
    recorded.write_bytes(recorded.read_bytes() + b'{"event_type": "tool.requested"}\n')
    done = watchkeeper("scan", str(recorded), cwd=tmp_path)
    assert done.returncode == 1
    assert f"{recorded}:8: " in done.stderr
    assert "pushing" in done.stdout


def test_scan_judges_a_repeated_event_once(tmp_path: Path) -> None:
    file = tmp_path / "repeated.ndjson"
    file.write_bytes(b"\n".join(denials("retrying", 4) * 3) + b"\n")
    done = watchkeeper("scan", str(file), str(file), "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_scan_marks_an_event_that_has_the_id_of_another(tmp_path: Path) -> None:
    file = tmp_path / "conflict.ndjson"
    file.write_bytes(b"\n".join(line(at=1, tool_name=tool, event_id="e1") for tool in ("read", "send")))
    done = watchkeeper("scan", str(file), "--json", cwd=tmp_path)
    [match] = [json.loads(raw) for raw in done.stdout.splitlines()]
    assert match["title"] == "One event id, two different events"
    assert match["event_ids"][0].startswith("e1#conflict-")


def test_scan_finds_what_only_silence_shows(tmp_path: Path) -> None:
    usual = sessions("invoice-agent", 230)
    changed = sessions("invoice-agent", 40, start=20 * DAY, output=1.8)
    [drift] = run(Drift(), in_order(usual, changed))
    events = sorted([*usual, *changed], key=lambda one: one.timestamp)
    assert events[drift.row].event_type == "task.completed"
    file = tmp_path / "silent.ndjson"
    file.write_bytes(b"\n".join(msgspec.json.encode(_sent(one)) for one in events[: drift.row]) + b"\n")
    found = list(scan(Settings(), load_texts([], rule_fields()), [file], _never, lambda *_: None))
    assert [one.finding_id for one in found if one.detector == "drift"] == [drift.finding_id]


def _sent(record: Any) -> dict[str, Any]:
    plain = msgspec.to_builtins(record)
    return {k: v for k, v in plain.items() if v is not None and k not in {"tenant", "identity"}}


def _never(file: Path, fault: Rejection) -> None:
    raise AssertionError(fault)


def test_check_passes_on_what_is_shipped_and_masks_secrets(tmp_path: Path) -> None:
    config = tmp_path / "w.toml"
    config.write_text("[slack]\ntoken = 'xoxb-hidden'\n")
    done = watchkeeper("--config", str(config), "check", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert done.returncode == 0, found["faults"]
    assert found["rules"] >= 12
    assert found["rule_tests"] >= 2 * found["rules"] - 6
    assert "xoxb-hidden" not in done.stdout


def test_check_names_every_fault(tmp_path: Path) -> None:
    (tmp_path / "broken.yml").write_text("title: broken\n")
    config = tmp_path / "w.toml"
    config.write_text(f"[detection]\nrules = ['{tmp_path / 'broken.yml'}']\n")
    done = watchkeeper("--config", str(config), "check", cwd=tmp_path)
    assert done.returncode == 1
    assert "broken.yml" in done.stdout


def test_a_command_without_a_daemon_says_what_to_do(tmp_path: Path) -> None:
    done = watchkeeper("alerts", "list", cwd=tmp_path)
    assert done.returncode == 1
    assert "watchkeeper serve" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_fault_that_is_shown_as_a_line_exists(name: str) -> None:
    module, _, kind = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), kind), Exception)


def test_blank_lines_count_in_what_is_said_of_a_bad_one(recorded: Path, tmp_path: Path) -> None:
    recorded.write_bytes(b"\n\n" + recorded.read_bytes() + b"\n{}\n")
    done = watchkeeper("scan", str(recorded), cwd=tmp_path)
    assert f"{recorded}:11: " in done.stderr


def test_a_chunk_is_bounded_by_bytes_and_a_line_by_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_files, "MOST_BYTES", 1000)
    monkeypatch.setattr(recorded_files, "MOST_LINE", 600)
    file = tmp_path / "long.ndjson"
    file.write_bytes(b"\n".join([b"a" * 400, b"b" * 400, b"c" * 5000, b"", b"d"]))
    read = [*recorded_files.chunks(file, 500)]
    assert [chunk.numbers for chunk in read] == [[1, 2, 3], [5]]
    assert [len(line) for chunk in read for line in chunk.lines] == [400, 400, 600, 1]


def test_wrong_usage_is_exit_code_two(tmp_path: Path) -> None:
    assert watchkeeper("kill", "--reason", "x", cwd=tmp_path).returncode == 2
    assert watchkeeper("replay", "no-such-file", cwd=tmp_path).returncode == 2
    assert watchkeeper("nonsense", cwd=tmp_path).returncode == 2


def test_a_wrong_setting_is_one_clear_line(tmp_path: Path) -> None:
    config = tmp_path / "w.toml"
    config.write_text("[edge]\nprot = 1\n")
    done = watchkeeper("--config", str(config), "serve", cwd=tmp_path)
    assert done.returncode == 1
    assert "edge.prot" in done.stderr
    assert len(done.stderr.splitlines()) == 1
