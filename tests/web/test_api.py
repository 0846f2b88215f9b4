"""The API for programs."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from starlette.testclient import TestClient

from detectors.base import LEVELS
from monitor.alerting.words import STATUSES, VERDICTS
from monitor.store.clickhouse import EventStore
from monitor.store.state import Alert, now
from monitor.web.api.models import AnyStatus, Level, Verdict
from tests.web.conftest import Browser, key
from tests.web.seeding import Stand, beats, finding, seed


@pytest.fixture
def alert(stand: Stand) -> Alert:
    return stand.file(finding("one", title="One"))[0]


def test_the_api_uses_the_words_of_triage() -> None:
    assert get_args(AnyStatus) == STATUSES
    assert get_args(Verdict) == tuple(VERDICTS)
    assert get_args(Level) == LEVELS


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wk_guess"}, {"Authorization": "Basic eDp5"}, {"Authorization": ""}],
)
def test_without_a_valid_key_there_is_a_problem_with_a_remedy(
    stranger: TestClient, headers: dict[str, str]
) -> None:
    answer = stranger.get("/api/v1/alerts", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "watchkeeper keys create" in answer.json()["detail"]


def test_a_key_does_only_what_its_scopes_say(stand: Stand, stranger: TestClient, alert: Alert) -> None:
    change = {"status": "acknowledged"}
    sender, reader, operator = key(stand, "ingest"), key(stand, "read"), key(stand, "triage", "respond")
    assert stranger.get("/api/v1/alerts", headers=sender).status_code == 403
    assert stranger.get("/api/v1/alerts", headers=reader).status_code == 200
    assert stranger.post(f"/api/v1/alerts/{alert.id}/changes", json=change, headers=reader).status_code == 403
    assert (
        stranger.post(f"/api/v1/alerts/{alert.id}/changes", json=change, headers=operator).status_code == 200
    )


def test_a_key_sees_its_own_tenant_only(stand: Stand, stranger: TestClient, alert: Alert) -> None:
    stand.file(finding("theirs", tenant="rival"))
    rival = key(stand, "read", "triage", "respond", tenant="rival")
    items = stranger.get("/api/v1/alerts", headers=rival).json()["items"]
    assert [item["tenant"] for item in items] == ["rival"]
    path = f"/api/v1/alerts/{alert.id}"
    assert stranger.get(path, headers=rival).status_code == 404
    assert stranger.post(f"{path}/changes", json={"owner": "me"}, headers=rival).status_code == 404
    order = {"scope": "agent", "agent_id": "research-agent", "tenant": "default", "reason": "x"}
    assert stranger.post("/api/v1/orders", json=order, headers=rival).status_code == 403


def test_pages_follow_one_another_although_new_alerts_arrive(stand: Stand, stranger: TestClient) -> None:
    reader = key(stand, "read")
    for number in range(5):
        stand.file(finding(f"n{number}"))
    seen: list[str] = []
    cursor = None
    while True:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = stranger.get("/api/v1/alerts", params=query, headers=reader).json()
        seen += [item["session_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        stand.file(finding(f"late-{len(seen)}"))
    assert seen == [f"session-n{number}" for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    "query", ["cursor=made-up", "cursor=4pyT", "status=open", "level=bad", "limit=0", "limit=x"]
)
def test_a_wrong_parameter_is_named(stand: Stand, stranger: TestClient, query: str) -> None:
    answer = stranger.get(f"/api/v1/alerts?{query}", headers=key(stand, "read"))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_alert_has_its_findings_its_orders_and_who_changed_it(
    stand: Stand, stranger: TestClient, store: EventStore
) -> None:
    seed(stand)
    reader = key(stand, "read")
    (item,) = stranger.get("/api/v1/alerts?level=critical", headers=reader).json()["items"]
    found = stranger.get(f"/api/v1/alerts/{item['id']}", headers=reader).json()
    assert found["orders"][0]["state"] == "contained"
    assert found["findings"][0]["event_ids"] == found["event_ids"]
    assert found["evidence"]["matched"]["outcome"] == "success"
    assert len(found["runbook"]) >= 3
    order = stranger.get(f"/api/v1/orders/{found['orders'][0]['request_id']}", headers=reader).json()
    assert [change["new"] for change in order["changes"]][-2:] == ["confirmed", "contained"]
    page = stranger.get("/api/v1/orders?state=contained", headers=reader).json()
    assert [each["request_id"] for each in page["items"]] == [order["request_id"]]


def test_a_change_answers_with_the_alert_and_its_new_version(
    stand: Stand, stranger: TestClient, alert: Alert
) -> None:
    operator = key(stand, "read", "triage", "respond")
    path = f"/api/v1/alerts/{alert.id}"
    etag = stranger.get(path, headers=operator).headers["etag"]
    body = {"status": "closed", "verdict": "false_positive", "reason": "a test account"}
    answer = stranger.post(f"{path}/changes", json=body, headers={**operator, "If-Match": etag})
    assert answer.status_code == 200
    assert answer.headers["etag"] != etag
    assert [change["new"] for change in answer.json()["changes"]] == ["closed", "false_positive"]
    assert answer.json()["changes"][0]["actor"].startswith("key:")
    late = stranger.post(f"{path}/changes", json={"owner": "x"}, headers={**operator, "If-Match": etag})
    assert late.status_code == 412
    late = stranger.post(f"{path}/changes", json={"owner": "x", "expected_version": 1}, headers=operator)
    assert late.status_code == 409


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"status": "suppressed"}, 422),
        ({"status": "new", "colour": "red"}, 422),
        ({"status": "closed"}, 409),
        ({"status": "closed", "verdict": "test"}, 409),
        ({"status": "new"}, 409),
    ],
)
def test_a_change_that_cannot_be_is_refused(
    stand: Stand, stranger: TestClient, alert: Alert, body: dict[str, Any], status: int
) -> None:
    answer = stranger.post(
        f"/api/v1/alerts/{alert.id}/changes", json=body, headers=key(stand, "triage", "respond")
    )
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_cookie_reads_but_writes_only_with_its_token(browser: Browser, alert: Alert) -> None:
    path = f"/api/v1/alerts/{alert.id}"
    assert browser.get(path).status_code == 200
    assert browser.post(f"{path}/changes", json={"owner": "ana"}).status_code == 403
    headers = {"X-CSRF-Token": browser.csrf}
    assert browser.post(f"{path}/changes", json={"owner": "ana"}, headers=headers).status_code == 200


def test_a_person_can_order_a_stop_and_asking_twice_gives_one_order(
    stand: Stand, stranger: TestClient, alert: Alert
) -> None:
    operator = key(stand, "read", "triage", "respond")
    body = {
        "scope": "session",
        "session_id": "session-one",
        "reason": "it mails strangers",
        "alert_id": alert.id,
    }
    first = stranger.post("/api/v1/orders", json=body, headers=operator)
    assert first.status_code == 201
    order = first.json()
    assert (order["agent_id"], order["state"], order["automatic"]) == ("research-agent", "requested", False)
    assert first.headers["location"] == f"/api/v1/orders/{order['request_id']}"
    again = stranger.post("/api/v1/orders", json=body, headers=operator).json()
    assert again["request_id"] == order["request_id"]
    assert (
        stranger.get(first.headers["location"], headers=operator).json()["changes"][0]["new"] == "requested"
    )


def test_the_agent_of_a_session_without_alerts_is_known_from_its_events(
    stand: Stand, stranger: TestClient, store: EventStore
) -> None:
    seed(stand, store)
    with stand.state.write() as session:
        for row in session.query(Alert).where(Alert.session_id == "ticket-7712"):
            row.identity = "provisional"
    body = {"scope": "session", "session_id": "ticket-7712", "reason": "enough"}
    assert (
        stranger.post("/api/v1/orders", json=body, headers=key(stand, "triage", "respond")).json()["agent_id"]
        == "support-agent"
    )


@pytest.mark.parametrize(
    "body",
    [
        {"scope": "fleet", "agent_id": "a", "reason": "x"},
        {"scope": "agent", "reason": "x"},
        {"scope": "agent", "agent_id": "a"},
        {"scope": "agent", "agent_id": "a", "session_id": "s", "reason": "x"},
        {"scope": "session", "session_id": "nobody-knows-it", "reason": "x"},
        {"scope": "agent", "agent_id": "a", "reason": "   "},
    ],
)
def test_an_incomplete_order_is_refused_with_a_reason(
    stand: Stand, stranger: TestClient, body: dict[str, Any]
) -> None:
    answer = stranger.post("/api/v1/orders", json=body, headers=key(stand, "triage", "respond"))
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_status_is_ready_only_while_all_parts_live(stand: Stand, stranger: TestClient) -> None:
    reader = key(stand, "read")
    assert stranger.get("/api/v1/status", headers=reader).json()["ready"] is False
    beats(stand.state)
    found = stranger.get("/api/v1/status", headers=reader).json()
    assert found["ready"] is True
    assert {part["name"] for part in found["processes"]} == {"edge", "detection", "console"}
    assert all(part["age_seconds"] < 10 and part["pid"] > 0 for part in found["processes"])
    assert isinstance(found["events_stored"], int)


def test_alerts_since_a_moment(stand: Stand, stranger: TestClient, alert: Alert) -> None:
    reader = key(stand, "read")
    query = f"created_after={alert.created_at}"
    assert stranger.get(f"/api/v1/alerts?{query}", headers=reader).json()["items"] == []
    assert alert.created_at <= now()
