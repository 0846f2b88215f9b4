"""An order that a guardrail holds: a person decides, and it is kept who and why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from monitor.events import arrow_batch
from monitor.sources.keys import Keys
from monitor.store.clickhouse import EventStore, placed
from monitor.store.state import Alert, Order, OrderChange
from tests.builders import event
from tests.web.conftest import Browser, key
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


STOP = {"scope": "agent", "agent_id": "research-agent", "reason": "enough"}


def test_tenant_and_environment_left_out_are_those_of_the_target(stand: Stand, stranger: TestClient) -> None:
    stand.file(finding("there", tenant="rival", environment="staging", identity="bound"))
    local = {"Authorization": f"Bearer {Keys(stand.state).renew_local()}"}
    answer = stranger.post("/api/v1/orders", json=STOP, headers=local)
    assert answer.status_code == 201
    with stand.state.read() as session:
        order = session.get_one(Order, answer.json()["request_id"])
    assert (order.tenant, order.environment) == ("rival", "staging")


def test_events_tell_the_environment_where_no_alert_does(
    stand: Stand, stranger: TestClient, store: EventStore
) -> None:
    heard = event(agent_id="told-by-events", environment="production", timestamp=datetime.now(UTC))
    store.insert(placed(pa.Table.from_batches([arrow_batch([heard])]), 1), token="told-by-events")
    body = {**STOP, "agent_id": "told-by-events"}
    answer = stranger.post("/api/v1/orders", json=body, headers=key(stand, "triage", "respond"))
    with stand.state.read() as session:
        assert session.get_one(Order, answer.json()["request_id"]).environment == "production"


@pytest.mark.parametrize(
    ("columns", "named"), [({"environment": "staging"}, "environment"), ({"tenant": "rival"}, "tenant")]
)
def test_a_target_known_in_several_places_must_be_named_in_full(
    stand: Stand, stranger: TestClient, columns: dict[str, str], named: str
) -> None:
    here = {"environment": "production", "identity": "bound"}
    stand.file(finding("one", **here), finding("two", **{**here, **columns}))
    local = {"Authorization": f"Bearer {Keys(stand.state).renew_local()}"}
    answer = stranger.post("/api/v1/orders", json=STOP, headers=local)
    assert answer.status_code == 422
    assert columns[named] in answer.json()["detail"]
    full = {**STOP, "environment": "production", "tenant": "default"}
    assert stranger.post("/api/v1/orders", json=full, headers=local).status_code == 201


def test_an_agent_that_nobody_knows_is_ordered_stopped_in_every_environment(
    stand: Stand, stranger: TestClient
) -> None:
    body = {**STOP, "agent_id": "never-heard"}
    answer = stranger.post("/api/v1/orders", json=body, headers=key(stand, "triage", "respond"))
    with stand.state.read() as session:
        order = session.get_one(Order, answer.json()["request_id"])
    assert (order.tenant, order.environment) == ("default", None)
