"""What pages show, over the API: sessions, events, rules, agents; and ETags that keep two people apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from monitor.alerting.silences import DAY, Pattern, silence
from monitor.events import arrow_batch
from monitor.store.clickhouse import EventStore, placed
from monitor.store.state import now
from tests.builders import event
from tests.web.conftest import Browser, key
from tests.web.seeding import RULES, Stand, finding

BEGUN = datetime(2026, 11, 3, 9, tzinfo=UTC)
SESSION = "team/one 77"


@pytest.fixture(scope="module")
def told(store: EventStore) -> None:
    common = {
        "agent_id": "team/reader",
        "session_id": SESSION,
        "tool_name": "read_page",
        "tool_call_id": "c1",
    }
    steps: list[tuple[str, dict[str, Any]]] = [
        ("tool.requested", {}),
        ("human.reviewed", {"reviewer_id": "bea", "review_decision": "approve"}),
        ("tool.executed", {"outcome": "success", "model_id": "m-1"}),
    ]
    events = [
        event(kind, event_id=f"api-{n}", timestamp=BEGUN + timedelta(seconds=n), **common, **more)
        for n, (kind, more) in enumerate(steps)
    ]
    store.insert(placed(pa.Table.from_batches([arrow_batch(events)]), 51), token="api-reading")


@pytest.mark.usefixtures("told")
def test_a_session_is_told_by_its_calls_and_its_events_in_pages(stand: Stand, stranger: TestClient) -> None:
    [alert] = stand.file(finding("a", agent_id="team/reader", session_id=SESSION, event_ids=("api-2",)))
    headers, rival = key(stand, "read"), key(stand, "read", tenant="rival")
    found = stranger.get(f"/api/v1/sessions/{SESSION}", headers=headers).json()
    assert (found["events"], found["agents"], found["cut"]) == (3, ["team/reader"], False)
    [call] = found["calls"]
    assert (call["tool"], call["state"], call["approved"], call["alerts"]) == (
        "read_page",
        "ran",
        "bea",
        [alert.id],
    )
    asked = {"session_id": SESSION, "limit": "2"}
    first = stranger.get("/api/v1/events", headers=headers, params=asked).json()
    rest = stranger.get(
        "/api/v1/events", headers=headers, params={**asked, "cursor": first["next_cursor"]}
    ).json()
    assert [one["event_id"] for one in first["items"] + rest["items"]] == ["api-0", "api-1", "api-2"]
    assert rest["next_cursor"] is None
    assert stranger.get(f"/api/v1/sessions/{SESSION}", headers=rival).status_code == 404
    asked["tenant"] = "default"
    assert stranger.get("/api/v1/events", headers=rival, params=asked).status_code == 403


@pytest.mark.usefixtures("told")
def test_an_agent_is_told_with_versions_tools_and_alerts(stand: Stand, stranger: TestClient) -> None:
    stand.file(finding("a", agent_id="team/reader"))
    headers = key(stand, "read")
    found = stranger.get("/api/v1/agents/team/reader", headers=headers).json()
    assert found["tools"][0]["tool_name"] == "read_page"
    assert found["versions"]["model_id"][0]["value"] == "m-1"
    assert len(found["alerts"]) == 1
    assert found["declared"] is None
    assert stranger.get("/api/v1/agents/nobody", headers=headers).status_code == 404


def test_a_rule_is_told_with_its_record_its_tests_and_its_silences(
    stand: Stand, stranger: TestClient
) -> None:
    rule = next(one for one in RULES.rules if one.generate and one.tests)
    headers = [key(stand, "read", tenant=tenant) for tenant in ("default", "rival", "third")]
    [alert] = stand.file(finding("a", rule_id=rule.id, detector="sigma"))
    stand.file(finding("b", rule_id=rule.id, detector="sigma", tenant="rival"))
    with stand.state.write() as session:
        stand.desk.change(session, alert.id, "ana", status="closed", verdict="true_positive", reason="real")
        silence(session, Pattern(rule.id, "default"), "ana", "a batch job", now() + DAY)
    found = stranger.get(f"/api/v1/rules/{rule.id}", headers=headers[0]).json()
    assert (found["rule"]["alerts"], found["rule"]["precision"]["share"]) == (1, 1.0)
    assert found["text"] == rule.text
    assert len(found["tests"]) == len(rule.tests) > 0
    assert (sum(found["alerts_by_day"]), len(found["silences"])) == (1, 1)
    rival = stranger.get(f"/api/v1/rules/{rule.id}", headers=headers[1]).json()
    assert (rival["rule"]["precision"], rival["silences"]) == (None, [])
    listed = stranger.get("/api/v1/rules", headers=headers[2]).json()["items"]
    assert sum(one["alerts"] for one in listed) == 0
    assert stranger.get("/api/v1/rules/none", headers=headers[0]).status_code == 404


def test_two_people_do_not_overwrite_each_others_declaration(
    stand: Stand, stranger: TestClient, browser: Browser
) -> None:
    headers, path = key(stand, "read", "triage"), "/api/v1/declared-agents/team/books"
    made = stranger.put(path, json={"owner": "ana"}, headers=headers)
    tag = {"If-Match": made.headers["etag"]}
    assert stranger.get(path, headers=headers).headers["etag"] == made.headers["etag"]
    assert stranger.put(path, json={"owner": "bea"}, headers=headers | tag).status_code == 200
    assert stranger.put(path, json={"owner": "cem"}, headers=headers | tag).status_code == 412
    form = {"csrf": browser.csrf, "owner": "dan", "risk_tier": "low", "seen": made.headers["etag"].strip('"')}
    answer = browser.post("/agents/team/books", data=form)
    assert answer.status_code == 409
    assert "somebody else has declared it" in answer.text
    assert stranger.get(path, headers=headers).json()["owner"] == "bea"
