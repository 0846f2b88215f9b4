from __future__ import annotations

from typing import Any

import pytest

from monitor.simulation.reporter import Reporter

ALERT: dict[str, Any] = {
    "level": "high",
    "agent_id": "crm-agent-oslo",
    "title": "Agent keeps running into policy blocks",
    "reason": "5 denials in 9 s in session s-1 (limit 5 in 10 min)",
}


def test_an_alert_is_told_with_its_level_agent_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter().alert(ALERT, "policy-blocks, after 6.6 s")
    told = capsys.readouterr().out
    for part in (*ALERT.values(), "policy-blocks, after 6.6 s"):
        assert part in told


def test_a_quiet_reporter_leaves_stdout_to_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    report = Reporter(quiet=True)
    report.heading("The fleet starts")
    with report.loading("loading", 2) as advance:
        advance(2)
    report.pulse("2 events")
    report.alert(ALERT, "")
    report.verdict("caught", "green", "a story")
    told = capsys.readouterr()
    assert told.out == ""
    assert "The fleet starts" in told.err


def test_what_an_agent_says_cannot_style_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter().alert(
        {**ALERT, "agent_id": "\x1b[2Jx", "reason": "[bold]y[/bold] \x1b]8;;https://a.example\x07"}, ""
    )
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "[bold]y[/bold]" in told
