"""`watchkeeper rules` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from monitor.cli import main

RULE = """
title: Large payment
id: 9a1d3f0e-5a53-4c7e-9c41-2f6b1c1c7d10
level: high
tags: [owasp-asi.2026.asi02]
logsource: {product: ai_agent}
detection:
  paid: {tool_name: pay, amount|gt: 500}
  condition: paid
response: {action: stop, scope: session}
tests:
  - {name: a large one, match: true, events: [{event_type: tool.requested, tool_name: pay, amount: 900}]}
  - {name: a small one, match: false, events: [{event_type: tool.requested, tool_name: pay, amount: 5}]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "rules"
    made.mkdir()
    (made / "pay.yml").write_text(RULE)
    return made


def rules(*arguments: object, given: str | None = None) -> Result:
    return CliRunner().invoke(main, ["rules", *map(str, arguments)], input=given, catch_exceptions=False)


def test_list_shows_what_a_rule_is(folder: Path) -> None:
    done = rules("list", folder)
    assert done.exit_code == 0
    for word in ("Large payment", "high", "asi02", "stop session", "event", "active"):
        assert word in done.stdout
    [entry] = json.loads(rules("list", folder, "--json").stdout)
    assert entry["tests"] == 2
    assert entry["response"] == {"action": "stop", "scope": "session"}


def test_test_passes_and_says_how_many(folder: Path) -> None:
    done = rules("test", folder)
    assert done.exit_code == 0
    assert "2 of 2 tests passed" in done.stdout


def test_test_shows_what_failed(folder: Path) -> None:
    (folder / "pay.yml").write_text(RULE.replace("amount|gt: 500", "amount|gt: 5000"))
    done = rules("test", folder)
    assert done.exit_code == 1
    assert "a large one" in done.stdout
    found = json.loads(rules("test", folder, "--json").stdout)
    [failed] = found["failed"]
    assert (failed["test"], failed["expected"], failed["found"]) == ("a large one", True, 0)


def test_a_test_with_an_event_that_is_none_is_told_and_the_others_run(folder: Path) -> None:
    whole = "{event_type: tool.requested, tool_name: pay, amount: 5}"
    (folder / "pay.yml").write_text(RULE.replace(whole, "{amount: 5}"))
    done = rules("test", folder)
    assert done.exit_code == 1
    assert "a small one: its events cannot be read" in " ".join(done.stdout.split())
    assert "1 of 2 tests passed" in done.stdout
    [broken] = json.loads(rules("test", folder, "--json").stdout)["broken"]
    assert "event_type" in broken["reason"]


def test_no_test_at_all_is_a_failure(folder: Path) -> None:
    (folder / "pay.yml").write_text(RULE[: RULE.index("tests:")])
    done = rules("test", folder)
    assert done.exit_code == 1
    assert "no test at all" in done.stdout


def test_one_rule_is_tested_by_its_title_and_an_unknown_one_is_told(folder: Path) -> None:
    assert rules("test", folder, "--rule", "large payment").exit_code == 0
    done = rules("test", folder, "--rule", "large paiment")
    assert done.exit_code == 1
    assert "did you mean Large payment" in done.stderr


def test_check_tells_every_fault_with_its_file(folder: Path) -> None:
    (folder / "broken.yml").write_text("title: broken\n")
    (folder / "worse.yml").write_text("- 1\n")
    done = rules("check", folder)
    assert done.exit_code == 1
    assert "broken.yml" in done.stdout
    assert "worse.yml" in done.stdout


def test_check_knows_the_keys_of_events_that_are_given(folder: Path, tmp_path: Path) -> None:
    (folder / "pay.yml").write_text(RULE.replace("tool_name: pay, amount|gt", "acount: x, amount|gt"))
    events = tmp_path / "events.ndjson"
    events.write_text('{"attributes": {"account": "x"}}\n')
    done = rules("check", folder, "--events", events)
    assert done.exit_code == 0
    assert "did you mean account?" in " ".join(done.stdout.split())
    assert rules("check", folder, "--events", events, "--strict").exit_code == 1


def test_explain_reads_a_rule_file_and_stdin(folder: Path) -> None:
    done = rules(
        "explain", folder / "pay.yml", "-", given='{"tool_name": "pay", "amount": 20, "event_id": "e1"}\n'
    )
    assert done.exit_code == 0
    assert "✓ tool_name is pay" in done.stdout
    assert "✗ amount > 500" in done.stdout
    assert "It did not fire" in done.stdout


def test_explain_prints_the_same_as_data(folder: Path) -> None:
    event = '{"tool_name": "pay", "amount": 900, "event_id": "e1"}\nnonsense\n'
    done = rules("explain", "9a1d3f0e", "-", "--rules", folder, "--json", given=event)
    found = json.loads(done.stdout)
    assert found["fired"]
    assert found["events"][0]["event_id"] == "e1"
    assert "-:2: " in done.stderr


def test_explain_finds_the_rules_that_a_file_refers_to(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "twice.yml"
    file.write_text(
        "title: twice\nid: 4f0f7a8e-7a55-4a6e-8a44-0b8f7c0f8f55\nlevel: high\ncorrelation:\n"
        "  type: event_count\n  rules: [9a1d3f0e-5a53-4c7e-9c41-2f6b1c1c7d10]\n"
        "  group-by: [session_id]\n  timespan: 1m\n"
        "  condition: {gte: 2}\n"
    )
    event = '{"tool_name": "pay", "amount": 900, "session_id": "s"}\n'
    done = rules("explain", file, "-", "--rules", folder, given=event)
    assert "1 of 2 within 1 min in session_id s" in done.stdout


def test_explain_tells_an_event_that_is_not_there(folder: Path) -> None:
    done = rules("explain", folder / "pay.yml", "-", "--event", "e9", given="{}\n")
    assert done.exit_code == 1
    assert "no event has the id 'e9'" in done.stderr


def test_coverage_draws_the_shipped_rules(tmp_path: Path) -> None:
    page = tmp_path / "coverage.html"
    done = rules("coverage", "--html", page)
    assert done.exit_code == 0
    assert "ASI10" in done.stdout
    assert "AML.TA0005" in done.stdout
    assert "Agent Goal Hijack" in page.read_text()
    found = json.loads(rules("coverage", "--json").stdout)
    assert len(found["owasp_agentic"]["rows"]) == 10
