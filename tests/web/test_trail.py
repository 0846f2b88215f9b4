"""The audit trail: every act of a person, with who, when, what and why."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError
from starlette.testclient import TestClient

from monitor.people.trail import entry, note
from monitor.store.state import AuditEntry
from tests.web.conftest import Browser, key
from tests.web.seeding import Stand, finding


def trail(stand: Stand, but: str = "sign_in") -> list[AuditEntry]:
    with stand.state.read() as session:
        found = session.scalars(select(AuditEntry).order_by(AuditEntry.id))
        return [one for one in found if one.action not in (but, "person.add")]


def filed(stand: Stand) -> str:
    [alert] = stand.file(finding())
    return alert.id


def test_reading_content_is_kept_once_in_ten_minutes(stand: Stand, browser: Browser) -> None:
    alert_id = filed(stand)
    for path in (f"/alerts/{alert_id}", f"/alerts/{alert_id}/drawer", f"/alerts?open={alert_id}"):
        assert browser.get(path).status_code == 200
    [read] = trail(stand)
    assert (read.action, read.actor, read.role) == ("content.read", "ana", "admin")
    assert read.subject == f"alert:{alert_id}"


def test_the_queue_alone_is_no_reading_of_content(stand: Stand, browser: Browser) -> None:
    filed(stand)
    assert browser.get("/alerts").status_code == 200
    assert trail(stand) == []


def test_a_change_is_kept_with_its_reason_and_a_refused_one_is_not(stand: Stand, browser: Browser) -> None:
    alert_id = filed(stand)
    browser.change(alert=f"{alert_id}@7", status="acknowledged")
    assert trail(stand) == []
    browser.change(alert=f"{alert_id}@1", status="closed", verdict="false_positive", reason="a test run")
    [kept] = trail(stand)
    assert (kept.action, kept.subject, kept.reason) == ("alert.change", f"alert:{alert_id}", "a test run")
    assert kept.detail == {"status": "closed", "verdict": "false_positive"}


def test_programs_are_in_it_too(stand: Stand, stranger: TestClient) -> None:
    alert_id = filed(stand)
    headers = key(stand, "read", "triage")
    body = {"status": "acknowledged", "reason": "seen"}
    assert stranger.post(f"/api/v1/alerts/{alert_id}/changes", json=body, headers=headers).status_code == 200
    [kept] = trail(stand)
    assert kept.actor.startswith("key:key_")


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"])
def test_nobody_bends_it(stand: Stand, statement: str) -> None:
    note(stand.state, entry("ana", "test", "thing:1"))
    with pytest.raises(DatabaseError, match="append-only"), stand.state.write() as session:
        session.execute(text(statement))


def test_it_is_read_on_a_page_and_over_the_api_in_pages(
    stand: Stand, browser: Browser, stranger: TestClient
) -> None:
    note(stand.state, *(entry("bea", "test.act", f"thing:{n}", reason="<b>why</b>") for n in range(5)))
    page = browser.get("/audit?actor=bea&action=test.")
    assert page.text.count("test.act") >= 5
    assert "<b>why</b>" not in page.text
    headers = key(stand, "audit")
    first = stranger.get("/api/v1/audit?actor=bea&limit=3", headers=headers).json()
    rest = stranger.get(f"/api/v1/audit?actor=bea&cursor={first['next_cursor']}", headers=headers).json()
    found = [one["subject"] for one in first["items"] + rest["items"]]
    assert found == [f"thing:{n}" for n in reversed(range(5))]
    assert rest["next_cursor"] is None
