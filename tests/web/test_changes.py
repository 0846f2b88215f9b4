"""Triage by form: who may change what, and what happens when two do it at once."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from monitor.store.state import Alert, AlertChange
from tests.web.conftest import Browser
from tests.web.seeding import Stand, finding


@pytest.fixture
def alert(stand: Stand) -> Alert:
    return stand.file(finding("one", title="One"))[0]


def now_is(stand: Stand, alert: Alert) -> Alert:
    with stand.state.read() as session:
        found = session.get(Alert, alert.id)
        assert found
        return found


def test_a_change_is_kept_with_who_and_answers_with_the_new_row(
    stand: Stand, browser: Browser, alert: Alert
) -> None:
    answer: Any = browser.change(alert=f"{alert.id}@1", status="acknowledged", shown=alert.id)
    assert answer.headers["hx-trigger"] == "alert-changed"
    assert f'id="row-{alert.id}"' in answer.text
    assert 'hx-swap-oob="true"' in answer.text
    assert now_is(stand, alert).status == "acknowledged"
    with stand.state.read() as session:
        change = session.scalars(select(AlertChange)).one()
    assert (change.actor, change.field, change.old, change.new) == ("ana", "status", "new", "acknowledged")


def test_a_row_that_the_page_does_not_show_is_not_sent(browser: Browser, alert: Alert) -> None:
    answer: Any = browser.change(alert=f"{alert.id}@1", status="acknowledged")
    assert "row-" not in answer.text


def test_closing_asks_for_verdict_and_reason(stand: Stand, browser: Browser, alert: Alert) -> None:
    target = f"{alert.id}@1"
    refused: Any = browser.change(alert=target, status="closed")
    assert "needs a verdict" in refused.text
    refused = browser.change(alert=target, status="closed", verdict="test", reason="  ")
    assert "needs a reason" in refused.text
    assert now_is(stand, alert).status == "new"
    browser.change(alert=target, status="closed", verdict="test", reason="a try")
    assert (now_is(stand, alert).status, now_is(stand, alert).verdict) == ("closed", "test")


def test_a_colleague_who_was_faster_is_not_overruled(stand: Stand, browser: Browser, alert: Alert) -> None:
    with stand.state.write() as session:
        stand.desk.change(session, alert.id, "bea", status="in_progress", reason="on it")
    answer: Any = browser.change(alert=f"{alert.id}@1", status="closed", verdict="test", reason="mine")
    assert "look again" in answer.text
    assert now_is(stand, alert).status == "in_progress"


def test_of_several_alerts_one_refusal_leaves_the_others(
    stand: Stand, browser: Browser, alert: Alert
) -> None:
    (other,) = stand.file(finding("two"))
    answer: Any = browser.change(alert=[f"{alert.id}@9", f"{other.id}@1"], mine="true")
    assert "look again" in answer.text
    assert now_is(stand, alert).owner is None
    assert now_is(stand, other).owner == "ana"


def test_without_the_forms_token_nothing_changes(stand: Stand, browser: Browser, alert: Alert) -> None:
    form = {"alert": f"{alert.id}@1", "status": "acknowledged"}
    assert browser.post("/alerts/changes", data=form).status_code == 403
    assert browser.post("/alerts/changes", data={**form, "csrf": "guess"}).status_code == 403
    assert now_is(stand, alert).status == "new"


def test_another_site_cannot_change_anything_even_with_the_token(
    stand: Stand, browser: Browser, alert: Alert
) -> None:
    form = {"alert": f"{alert.id}@1", "status": "acknowledged", "csrf": browser.csrf}
    answer = browser.post("/alerts/changes", data=form, headers={"Sec-Fetch-Site": "same-site"})
    assert answer.status_code == 403
    assert now_is(stand, alert).status == "new"


def test_without_script_a_form_leads_back_to_the_alert(browser: Browser, alert: Alert) -> None:
    form = {"alert": f"{alert.id}@1", "status": "acknowledged", "csrf": browser.csrf}
    answer = browser.post("/alerts/changes", data=form)
    assert answer.headers["location"] == f"/alerts/{alert.id}"
    assert browser.post("/alerts/changes", data=form).status_code == 409


def test_news_counts_what_came_and_what_others_changed(stand: Stand, browser: Browser, alert: Alert) -> None:
    seen = f"seen={alert.created_at}&changed=0"
    assert browser.get(f"/alerts/fresh?{seen}").text.strip() == ""
    browser.change(alert=f"{alert.id}@1", status="acknowledged")
    assert browser.get(f"/alerts/fresh?{seen}").text.strip() == ""
    with stand.state.write() as session:
        stand.desk.change(session, alert.id, "bea", owner="bea", reason="")
    stand.file(finding("two"), finding("three", level="high"))
    assert "2 new, 1 changed, press" in browser.get(f"/alerts/fresh?{seen}").text
    assert "1 new, press" in browser.get(f"/alerts/fresh?level=high&{seen}").text
