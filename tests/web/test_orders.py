"""An order that a guardrail holds: a person decides, and it is kept who and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from monitor.store.clickhouse import EventStore
from monitor.store.state import Alert, Order, OrderChange
from tests.web.conftest import Browser
from tests.web.seeding import ENDPOINT, RULES, Stand, console, finding


@pytest.fixture
def stand(tmp_path: Path, store: EventStore) -> Iterator[Stand]:
    strict = {"mode": "enforce", "endpoints": [ENDPOINT], "protected": ["research-agent"]}
    with console(tmp_path / "data", store, containment=strict) as made:
        yield made


@pytest.fixture
def held(stand: Stand) -> Order:
    rule = next(rule for rule in RULES.rules if rule.response)
    with stand.state.write() as session:
        (alert,) = stand.desk.file(session, [finding(rule_id=rule.id, learned=False, identity="bound")])
        order = stand.orders.consider(session, alert)
    assert order
    assert order.state == "held"
    return order


def now_is(stand: Stand, order: Order) -> tuple[str, OrderChange]:
    with stand.state.read() as session:
        newest = select(OrderChange).order_by(OrderChange.id.desc()).limit(1)
        found = session.get(Order, order.request_id)
        assert found
        return found.state, session.scalars(newest).one()


@pytest.mark.parametrize(("decision", "state"), [("approve", "requested"), ("cancel", "cancelled")])
def test_a_held_order_is_let_go_or_taken_back_by_a_person(
    stand: Stand, browser: Browser, held: Order, decision: str, state: str
) -> None:
    assert "Approve and send" in browser.get(f"/alerts/{held.alert_id}").text
    form = {"decision": decision, "reason": "seen it myself", "csrf": browser.csrf}
    answer = browser.post(f"/orders/{held.request_id}/decision", data=form)
    assert answer.headers["location"] == f"/alerts/{held.alert_id}"
    now, change = now_is(stand, held)
    assert (now, change.actor, change.reason) == (state, "ana", "seen it myself")
    assert browser.post(f"/orders/{held.request_id}/decision", data=form).status_code == 409


def test_without_a_reason_or_the_token_it_stays_held(stand: Stand, browser: Browser, held: Order) -> None:
    path = f"/orders/{held.request_id}/decision"
    headers = {"HX-Request": "true", "X-CSRF-Token": browser.csrf}
    refused = browser.post(path, data={"decision": "approve", "reason": " "}, headers=headers)
    assert "give a reason" in refused.text
    assert browser.post(path, data={"decision": "approve", "reason": "x"}).status_code == 403
    assert now_is(stand, held)[0] == "held"


def test_an_alert_about_an_order_shows_that_order(stand: Stand, browser: Browser, held: Order) -> None:
    (about,) = stand.file(
        finding("paged", detector="watchkeeper", evidence={"request_id": held.request_id, "state": "held"})
    )
    with stand.state.read() as session:
        assert session.get(Alert, about.id)
    assert "Approve and send" in browser.get(f"/alerts/{about.id}").text
