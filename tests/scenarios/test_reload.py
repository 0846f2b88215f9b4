"""Rules change under a running daemon: all or none, recorded, and judged again by the rules of their time."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from monitor.store.state import Control, State
from tests.daemons import Daemon, until

RULE = """title: {title}
id: 6b1f0c52-0000-4000-8000-00000000000{number}
level: high
logsource: {{product: ai_agent}}
detection: {{s: {{tool_args|contains|expand: '%marks%'}}, condition: s}}
runbook: [look]
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "one.yml").write_text(RULE.format(title="first", number=1))
    return folder


@pytest.fixture
def daemon(tmp_path: Path, rules: Path) -> Any:
    watching = f'[detection]\nrules = ["{rules}"]\nsnapshot_seconds = 0.5\n[lists]\nmarks = ["zebra"]\n'
    daemon = Daemon(tmp_path / "data", watching)
    daemon.start()
    yield daemon
    daemon.stop()


def send(daemon: Daemon, name: str, args: str) -> None:
    event = {
        "event_id": name,
        "event_type": "tool.executed",
        "timestamp": "2026-11-23T10:00:00Z",
        "agent_id": "a",
        "session_id": name,
        "tool_args": args,
    }
    assert daemon.client.send([json.dumps(event).encode()], live=True)["accepted"] == 1


def titles(daemon: Daemon) -> list[tuple[str, str]]:
    alerts = daemon.client.get("/api/v1/alerts")["items"]
    return sorted((alert["title"], alert["rule_version"]) for alert in alerts if alert["detector"] == "sigma")


def hashes(daemon: Daemon) -> list[str]:
    state = State(daemon.data / "state.db")
    try:
        with state.read() as session:
            return [one.payload["hash"] for one in session.query(Control).filter_by(kind="rules")]
    finally:
        state.close()


def test_new_rules_judge_what_comes_after_them_and_survive_a_kill(daemon: Daemon, rules: Path) -> None:
    send(daemon, "before", "zebra")
    until(lambda: len(titles(daemon)) == 1, "the first alert")
    (rules / "two.yml").write_text(RULE.format(title="second", number=2))
    found = json.loads(daemon.run("reload", "--json"))
    assert (found["rules"], found["changed"]) == (2, True)
    send(daemon, "after", "zebra")
    after = until(lambda: len(titles(daemon)) == 3 and titles(daemon), "both rules' alerts")
    assert [title for title, _ in after] == ["first", "first", "second"]
    (rules / "two.yml").unlink()
    daemon.kill()
    daemon.start()
    # the files say one rule again; what was judged stays judged, by the rules of its time
    assert titles(daemon) == after
    send(daemon, "later", "zebra")
    later = until(lambda: len(titles(daemon)) == 4 and titles(daemon), "the alert after the restart")
    assert [title for title, _ in later] == ["first", "first", "first", "second"]


def test_a_broken_rule_keeps_the_old_set_and_says_why(daemon: Daemon, rules: Path) -> None:
    (rules / "two.yml").write_text(RULE.format(title="second", number=2))
    (rules / "three.yml").write_text("title: [unclosed")
    daemon.run("reload", code=1)
    assert daemon.process
    daemon.process.send_signal(signal.SIGHUP)

    def refused() -> Any:
        alerts = daemon.client.get("/api/v1/alerts")["items"]
        return [alert for alert in alerts if alert["rule_id"].endswith("rules-refused")]

    [alert] = until(refused, "the alert about the refusal")
    assert "three.yml" in alert["reason"]
    send(daemon, "after", "zebra")
    assert [title for title, _ in until(lambda: titles(daemon), "the old rule's alert")] == ["first"]
    assert hashes(daemon) == []


def test_a_changed_list_is_taken_anew_and_changes_the_version(daemon: Daemon) -> None:
    send(daemon, "before", "zebra")
    until(lambda: len(titles(daemon)) == 1, "the first alert")
    daemon.config.write_text(daemon.config.read_text().replace('"zebra"', '"okapi"'))
    daemon.run("reload")
    send(daemon, "after", "okapi")
    both = until(lambda: len(titles(daemon)) == 2 and titles(daemon), "an alert by the new list")
    assert len({version for _, version in both}) == 2


def test_files_that_change_are_taken_by_themselves_where_that_is_asked(tmp_path: Path, rules: Path) -> None:
    watching = f'[detection]\nrules = ["{rules}"]\nwatch_rules = true\n[lists]\nmarks = ["zebra"]\n'
    daemon = Daemon(tmp_path / "watched", watching).start()
    try:
        (rules / "two.yml").write_text(RULE.format(title="second", number=2))
        until(lambda: hashes(daemon), "the new rules' record")
        until(lambda: daemon.run("reload", "--json") and True, "detection to follow")
        send(daemon, "after", "zebra")
        found = until(lambda: len(titles(daemon)) == 2 and titles(daemon), "both rules' alerts")
        assert [title for title, _ in found] == ["first", "second"]
    finally:
        daemon.stop()
