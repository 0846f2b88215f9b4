"""Silencing from an alert, with its preview, and the list of silences."""

from __future__ import annotations

import re

from sqlalchemy import select

from monitor.store.state import Alert, AuditEntry, Silence
from tests.web.conftest import Browser
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
