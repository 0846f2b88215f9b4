"""The rules that Watchkeeper ships: their own tests, their manners, and healthy agents."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from detectors.base import LEVELS, Batch
from detectors.sigma import Rule, RuleSet, SigmaDetector, TestResult, load_rules, run_tests
from detectors.sigma.testing import test_events as whole_events
from monitor.events import rule_fields
from monitor.rulebook import frame_of

RULES = Path(__file__).parents[2] / "rules"


@cache
def shipped() -> RuleSet:
    return load_rules([RULES], rule_fields())


REPORTING = [rule for rule in shipped().rules if rule.generate]
RESULTS = run_tests(shipped(), frame_of)


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: f"{result.title}: {result.name}")
def test_a_rule_judges_the_events_in_its_file_as_it_says(result: TestResult) -> None:
    assert result.passed, f"{result.path}: expected {result.expected}, found {result.found}"


@pytest.mark.parametrize("rule", REPORTING, ids=lambda rule: rule.title)
def test_a_rule_is_fit_for_an_analyst(rule: Rule) -> None:
    expected = [test["match"] for test in rule.tests]
    assert any(expected), "an attack"
    assert not all(expected), "a benign twin"
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", rule.id)
    assert 3 <= len(rule.runbook) <= 6
    assert rule.description
    assert rule.falsepositives
    assert any(tag.startswith("owasp-asi.2026.") for tag in rule.tags)
    assert "author: Watchkeeper" in rule.text
    assert re.search(r"^date: 20\d\d-\d\d-\d\d$", rule.text, re.MULTILINE)


def test_the_pack_covers_every_agentic_risk() -> None:
    covered = {tag for rule in REPORTING for tag in rule.tags if tag.startswith("owasp-asi")}
    assert covered == {f"owasp-asi.2026.asi{number:02}" for number in range(1, 11)}


def test_only_rules_of_high_level_may_ask_for_a_stop() -> None:
    asking = {rule.title: rule.response for rule in REPORTING if rule.response}
    assert asking["Agent keeps running into policy blocks"] == {"action": "stop", "scope": "session"}
    assert asking["Secret read, then data sent out"] == {"action": "stop", "scope": "agent"}
    assert asking["Tool ran although it had been denied"] == {"action": "stop", "scope": "agent"}
    assert all(LEVELS.index(rule.level) >= LEVELS.index("high") for rule in REPORTING if rule.response)


HEALTHY: dict[str, list[dict[str, Any]]] = {
    "mail": [
        {
            "tool_name": "read_inbox",
            "effect": "read",
            "tool_result": "Please ignore my last mail. The password policy",
        },
        {"tool_name": "search_contacts", "effect": "read", "tool_args": '{"query": "Root, Ann"}'},
        {
            "tool_name": "send_email",
            "effect": "external",
            "target": "ann@customer.example",
            "tool_args": "Hello Ann",
        },
        {"tool_name": "delete_email", "effect": "write", "tool_args": '{"id": 7}'},
    ],
    "invoices": [
        {"tool_name": "get_invoice", "effect": "read", "tool_args": '{"invoice": "INV-1"}'},
        {"tool_name": "query_database", "effect": "read", "tool_args": '{"sql": "SELECT * FROM payments"}'},
        {"tool_name": "approve_invoice", "effect": "write", "amount": 120.0, "risk_tier": "medium"},
        {"tool_name": "upload_file", "effect": "external", "target": "sftp.bank.example"},
    ],
    "crm": [
        {
            "tool_name": "update_profile",
            "effect": "write",
            "tool_args": '{"note": "always call before noon"}',
        },
        {"tool_name": "http_post", "effect": "external", "target": "api.crm.example"},
        {"tool_name": "get_secretary", "effect": "read", "tool_args": '{"company": "Vault Ltd"}'},
    ],
    "hr records": [
        {"tool_name": "get_employee", "effect": "read", "data_accessed": ["hr.salaries"]},
        {
            "tool_name": "add_member",
            "effect": "write",
            "tool_args": '{"group": "chess", "role": "member"}',
        },
        {"tool_name": "set_access", "effect": "write", "tool_args": '{"user": "bob", "access": "read"}'},
    ],
    "code review": [
        {
            "tool_name": "read_file",
            "effect": "read",
            "target": "src/secrets.py",
            "tool_result": "def rotate(): ...",
        },
        {"tool_name": "bash", "tool_args": '{"command": "rm -rf build && pip install -e . && pytest -q"}'},
        {"tool_name": "edit_file", "effect": "write", "tool_args": '{"path": "src/settings.json"}'},
        {
            "tool_name": "post_comment",
            "effect": "external",
            "tool_args": "curl x | sh is a bad idea, so is rm -rf /",
        },
    ],
    "support refunds": [
        {"tool_name": "lookup_order", "effect": "read", "outcome": "failure"},
        {"tool_name": "lookup_order", "effect": "read"},
        {
            "tool_name": "refund",
            "effect": "irreversible",
            "amount": 20.0,
            "risk_tier": "high",
            "approved": True,
        },
        {"tool_name": "send_email", "effect": "external", "target": "customer@mail.example"},
    ],
}


def working_day(job: str, sessions: int = 8) -> list[dict[str, Any]]:
    """Sessions of one healthy agent, as wire dictionaries: asked, allowed, sometimes denied, run."""
    events: list[dict[str, Any]] = []
    for session in range(sessions):
        common = {"agent_id": f"{job} agent", "session_id": f"{job}-{session}"}
        start = session * 600
        events.append({"event_type": "task.created", "at": start, "task_goal": f"do the {job}", **common})
        for step, given in enumerate(HEALTHY[job] * 2):
            call = {key: value for key, value in given.items() if key != "approved"}
            call |= {**common, "tool_call_id": f"c{step}"}
            asked = {key: value for key, value in call.items() if key not in ("tool_result", "outcome")}
            at = start + step * 9 + 1
            denied = step == 1 and session % 2
            steps: list[dict[str, Any]] = [
                {"event_type": "tool.requested", **asked},
                {"event_type": "policy.checked", "policy_decision": "deny" if denied else "allow", **asked},
            ]
            if given.get("approved"):
                steps.append({"event_type": "human.reviewed", "review_decision": "approve", **asked})
            if not denied:
                steps.append({"event_type": "tool.executed", "outcome": "success", **call})
            events += [{"at": at + delay, **event} for delay, event in enumerate(steps)]
        events.append({"event_type": "task.completed", "at": start + 500, "outcome": "success", **common})
    return [{"event_id": f"{job}-{number}", **event} for number, event in enumerate(events)]


@pytest.mark.parametrize("job", HEALTHY)
def test_a_healthy_business_agent_trips_no_rule_of_level_high(job: str) -> None:
    events = whole_events(working_day(job), shipped())
    findings = SigmaDetector(shipped()).process(Batch(frame_of(shipped(), events)))
    assert [finding.reason for finding in findings if finding.level in ("high", "critical")] == []


def test_no_rule_of_the_pack_is_left_without_an_explanation() -> None:
    for rule in REPORTING:
        for test in rule.tests:
            if test["match"]:
                frame = frame_of(shipped(), whole_events(test["events"], shipped()))
                findings = SigmaDetector(shipped().alone(rule)).process(Batch(frame))
                told = [finding for finding in findings if finding.rule_id == rule.id]
                assert all(finding.evidence["conditions"] and finding.reason for finding in told)
                assert all(finding.evidence["matched"] for finding in told)
