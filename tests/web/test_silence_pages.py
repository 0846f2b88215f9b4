"""Silencing from an alert, with its preview, and the list of silences."""

from __future__ import annotations

import re

from sqlalchemy import select
from starlette.testclient import TestClient

from monitor.alerting.silences import DAY
from monitor.store.state import Alert, AuditEntry, Silence, now
from tests.web.conftest import Browser, key
from tests.web.seeding import Stand, finding


def test_an_alert_is_silenced_with_a_preview_and_the_silence_can_be_ended(
    stand: Stand, browser: Browser
) -> None:
    [alert] = stand.file(finding("one"))
    stand.file(finding("two"), finding("three", agent_id="other"))
    assert "would have hidden 2 alerts in 7 days" in browser.get(f"/alerts/{alert.id}/silence").text
    assert "would have hidden 3 alerts" in browser.get(f"/alerts/{alert.id}/silence?wide=rule").text
    form = {"csrf": browser.csrf, "days": "7", "reason": "a batch job", "wide": "agent"}
    assert browser.post(f"/alerts/{alert.id}/silence", data=form).status_code == 303
    stand.file(finding("four"), finding("five", agent_id="other"))
    with stand.state.read() as session:
        states = {one.session_id: one.status for one in session.query(Alert)}
        made = session.query(Silence).one()
    assert states["session-four"] == "suppressed"
    assert states["session-five"] == "new"
    assert (made.owner, made.reason) == ("ana", "a batch job")
    page = browser.get("/silences").text
    assert "a batch job" in page
    assert re.search(r'class="num">1</td>', page)
    assert browser.post(f"/silences/{made.id}/end", data={"csrf": browser.csrf}).status_code == 303
    assert "ended by" in browser.get("/silences").text
    assert browser.post(f"/silences/{made.id}/end", data={"csrf": browser.csrf}).status_code == 409
    with stand.state.read() as session:
        told = [one.action for one in session.scalars(select(AuditEntry))]
    assert [action for action in told if action.startswith("silence.")] == ["silence.create", "silence.end"]


def test_suppressed_alerts_are_out_of_the_queue_and_can_be_asked_for(stand: Stand, browser: Browser) -> None:
    [alert] = stand.file(finding("one"))
    with stand.state.write() as session:
        session.get_one(Alert, alert.id).status = "suppressed"
    assert alert.id not in browser.get("/alerts").text
    assert alert.id in browser.get("/alerts?status=suppressed").text


def test_a_silence_without_a_reason_is_refused(stand: Stand, browser: Browser) -> None:
    [alert] = stand.file(finding("one"))
    form = {"csrf": browser.csrf, "days": "7", "reason": " "}
    assert browser.post(f"/alerts/{alert.id}/silence", data=form).status_code == 409


def test_programs_preview_make_list_and_end_silences_of_their_tenant(
    stand: Stand, stranger: TestClient
) -> None:
    headers, rival = key(stand, "read", "triage"), key(stand, "read", "triage", tenant="rival")
    [alert] = stand.file(finding("one"))
    about = {"rule_id": alert.rule_id, "agent_id": alert.agent_id}
    path = "/api/v1/silences"
    assert stranger.post(f"{path}/preview", json=about, headers=headers).json() == {
        "hidden": 1,
        "verdicts": {},
    }
    wanted = {**about, "reason": "a batch job", "ends_at": now() + DAY}
    made = stranger.post(path, json=wanted, headers=headers)
    assert made.status_code == 201
    assert made.json()["tenant"] == "default"
    assert stranger.post(path, json={**wanted, "ends_at": 1}, headers=headers).status_code == 422
    assert stranger.post(path, json={**wanted, "tenant": "default"}, headers=rival).status_code == 403
    place = f"{path}/{made.json()['id']}"
    assert stranger.get(path, headers=rival).json()["items"] == []
    assert stranger.delete(place, headers=rival).status_code == 404
    assert len(stranger.get(path, headers=headers).json()["items"]) == 1
    assert stranger.delete(place, headers=headers).status_code == 200
    assert stranger.get(path, headers=headers).json()["items"] == []
    assert len(stranger.get(f"{path}?ended=true", headers=headers).json()["items"]) == 1


def test_an_alert_shows_what_became_of_similar_ones(stand: Stand, browser: Browser) -> None:
    [alert, other, _] = stand.file(finding("one"), finding("two"), finding("three", agent_id="other-agent"))
    stand.file(finding("elsewhere", tenant="rival"))
    with stand.state.write() as session:
        stand.desk.change(session, other.id, "ana", status="closed", verdict="false_positive", reason="no")
    page = browser.get(f"/alerts/{alert.id}").text
    assert re.search(r"Similar alerts <span>2 of this rule, 1 false positive</span>", page)
    assert page.index("false positive</b>") < page.index("other-agent")
