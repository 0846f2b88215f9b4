"""A state database, settings that point at a stand-in of Slack, and findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from detectors.base import Finding
from monitor.alerting.alerts import AlertDesk
from monitor.settings import Settings
from monitor.store.migrate import migrate_state
from monitor.store.state import Alert, State
from tests.alerting.slack_api import TOKEN, SlackApi


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    migrate_state(tmp_path / "state.db")
    opened = State(tmp_path / "state.db")
    yield opened
    opened.close()


@pytest.fixture
def slack() -> Iterator[SlackApi]:
    with SlackApi() as api:
        yield api


@pytest.fixture
def settings(tmp_path: Path, slack: SlackApi) -> Settings:
    return Settings(
        data=tmp_path,
        slack={"token": TOKEN, "base_url": slack.url, "pictures": False},
        console={"public_url": "https://wk.example"},
    )


@dataclass(frozen=True)
class Rule:
    runbook: tuple[str, ...]


RULES = {"exfiltration": Rule(("Stop the session.", "Ask the owner."))}


@pytest.fixture
def desk(state: State, settings: Settings) -> AlertDesk:
    return AlertDesk(state, RULES, settings)


def finding(finding_id: str = "f1", **values: Any) -> Finding:
    known: dict[str, Any] = {
        "detector": "sigma",
        "rule_id": "exfiltration",
        "rule_version": "1",
        "title": "Data leaves the house",
        "reason": "Agent sent 3 files to evil.example, expected 0.",
        "level": "high",
        "tenant": "default",
        "agent_id": "invoice-agent",
        "session_id": "s1",
        "timestamp": 1_000_000,
        "event_ids": (f"event of {finding_id}",),
        "event_count": 1,
        "evidence": {"matched": {"target": "evil.example"}},
    }
    return Finding(finding_id=finding_id, **{**known, **values})


@pytest.fixture
def file(state: State, desk: AlertDesk) -> Callable[..., list[Alert]]:
    """Files findings in one transaction."""

    def run(*findings: Finding) -> list[Alert]:
        with state.write() as session:
            return desk.file(session, findings)

    return run


@pytest.fixture
def change(state: State, desk: AlertDesk) -> Callable[..., Alert]:
    """Changes an alert in one transaction, as ana."""

    def run(alert_id: str, reason: str = "", actor: str = "ana", **fields: Any) -> Alert:
        with state.write() as session:
            return desk.change(session, alert_id, actor, reason=reason, **fields)

    return run
