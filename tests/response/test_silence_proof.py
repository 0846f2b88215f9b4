"""A stop is contained only when the telemetry itself has fallen silent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from detectors.base import Finding
from monitor.response.containment import SilenceProof
from monitor.response.heard import Heard
from monitor.response.orders import OrderDesk
from monitor.store.state import Order, State
from tests.builders import START, event, frame
from tests.response.making import ask_to_stop, desk, moves, pages, read
from tests.response.responders import containment

GRACE = 15
CONFIRMED = 100
"""When the order was confirmed, seconds after START; grace ends at 115."""


def us(at: float) -> int:
    return round(START.timestamp() * 1e6 + at * 1e6)


class Scene:
    """A confirmed stop of session s1 of the invoice agent, and the proof that watches it."""

    def __init__(self, state: State, **order: Any) -> None:
        self.state = state
        self.orders: OrderDesk = desk(state, containment(grace_seconds=GRACE))
        self.proof = self.another_proof()
        self.request_id = ask_to_stop(self.orders, **order).request_id

    def another_proof(self) -> SilenceProof:
        return SilenceProof(self.state, self.orders, containment(grace_seconds=GRACE), refresh_seconds=0)

    def confirm(self) -> None:
        with self.state.write() as session:
            order = session.get_one(Order, self.request_id)
            self.orders.move(session, order, "sent", "worker", "to main", sent_at=us(CONFIRMED - 1))
            self.orders.move(session, order, "confirmed", "worker", "ok", confirmed_at=us(CONFIRMED))

    def hear(self, *events: Any) -> list[Finding]:
        return self.proof.observe(frame(*events))

    def order(self) -> Order:
        return read(self.state, self.request_id)


def other(at: float, **columns: Any) -> Any:
    """An event of an agent that nobody stopped."""
    return event("model.invoked", at, **{"agent_id": "support-agent", "session_id": "s9", **columns})


@pytest.fixture
def scene(state: State) -> Scene:
    made = Scene(state)
    made.hear(event("tool.executed", 90), other(91))
    made.confirm()
    return made


def test_silence_while_others_are_heard_is_contained(scene: Scene) -> None:
    assert scene.hear(other(114)) == []
    assert scene.order().state == "confirmed"
    assert scene.hear(other(116)) == []
    order = scene.order()
    assert (order.state, order.last_action_at, order.silent_at) == ("contained", us(90), us(116))
    assert moves(scene.state, scene.request_id) == ["requested", "sent", "confirmed", "contained"]


def test_time_proves_silence_where_others_were_heard_since_the_confirmation(scene: Scene) -> None:
    scene.hear(other(105))
    scene.proof.tick(us(114))
    assert scene.order().state == "confirmed"
    scene.proof.tick(us(116))
    assert (scene.order().state, scene.order().silent_at) == ("contained", us(116))


def test_silence_is_not_provable_while_nobody_is_heard(scene: Scene) -> None:
    for at in (116, 130, 300):
        assert scene.proof.tick(us(at)) == []
    order = scene.order()
    assert order.state == "confirmed"
    assert str(order.detail).startswith("silence not provable: nobody else heard")


def test_others_heard_long_ago_prove_nothing(scene: Scene) -> None:
    scene.hear(other(105))
    scene.proof.tick(us(140))
    assert scene.order().state == "confirmed"


def test_silence_becomes_provable_when_telemetry_comes_back(scene: Scene) -> None:
    scene.proof.tick(us(300))
    scene.hear(other(301))
    assert scene.order().state == "contained"


def test_another_source_or_tenant_proves_nothing(scene: Scene) -> None:
    scene.hear(other(116, source="otel"), other(117, tenant="acme"))
    scene.proof.tick(us(120))
    assert scene.order().state == "confirmed"


@pytest.mark.parametrize("typo", [{"agent_id": "invoice-agnet"}, {"session_id": "s11"}])
def test_a_target_that_was_never_heard_is_not_called_silent(state: State, typo: dict[str, str]) -> None:
    scene = Scene(state, **typo)
    scene.hear(event("tool.executed", 90), other(91))
    scene.confirm()
    scene.hear(other(116), event("tool.executed", 116))
    scene.proof.tick(us(117))
    order = scene.order()
    assert order.state == "confirmed"
    assert str(order.detail).startswith("silence not provable: nothing was ever heard from session")


def test_a_target_heard_only_before_its_order_is_known_with_its_source(state: State) -> None:
    orders = desk(state, containment(grace_seconds=GRACE))
    proof = SilenceProof(state, orders, containment(grace_seconds=GRACE), refresh_seconds=0)
    proof.observe(frame(event("tool.executed", 90), other(91, source="otel")))
    scene = Scene(state)
    scene.proof = proof
    proof.tick(us(95))
    scene.confirm()
    scene.hear(other(116, source="otel"))
    assert (scene.order().state, scene.order().last_action_at) == ("confirmed", us(90))
    scene.hear(other(117))
    assert scene.order().state == "contained"


def test_after_a_restart_a_target_once_heard_is_judged_by_all_telemetry_of_its_tenant(scene: Scene) -> None:
    scene.proof = scene.another_proof()
    scene.hear(other(116, source="otel"))
    order = scene.order()
    assert order.state == "contained"
    assert "source is not known" in str(order.detail)


def test_what_a_rule_ordered_stopped_was_heard_by_that_rule(state: State) -> None:
    scene = Scene(state)
    with state.write() as session:
        session.get_one(Order, scene.request_id).initiator_type = "rule"
    scene.confirm()
    scene.hear(other(116, source="otel"))
    assert scene.order().state == "contained"


def test_the_memory_of_who_was_heard_is_bounded() -> None:
    heard = Heard(most=2)
    for at, agent in enumerate(["a", "b", "a", "c"]):
        heard.take([("default", "otel", agent, None, "s", at, at)])
    assert [heard.of("default", agent, None, None)[0] for agent in "abc"] == [{"otel"}, set(), {"otel"}]


@pytest.mark.parametrize("event_type", ["model.invoked", "tool.requested", "tool.executed"])
def test_an_action_after_the_grace_is_critical_and_the_stop_has_failed(scene: Scene, event_type: str) -> None:
    [finding] = scene.hear(event(event_type, 116), other(117))
    assert (finding.rule_id, finding.level) == ("watchkeeper.active-after-stop", "critical")
    assert finding.event_ids == (f"s1-{event_type}-116",)
    assert "16.0 s later (15 s allowed)" in finding.reason
    assert scene.proof.tick(us(117)) == []
    order = scene.order()
    assert (order.state, order.last_action_at) == ("failed", us(116))
    assert str(order.detail).startswith("active after the stop")
    assert pages(scene.state) == []


def test_actions_within_the_grace_are_no_violation(scene: Scene) -> None:
    assert scene.hear(event("tool.executed", 114.9)) == []
    scene.hear(other(116))
    assert (scene.order().state, scene.order().last_action_at) == ("contained", us(114.9))


def test_an_event_from_before_the_confirmation_may_come_late(scene: Scene) -> None:
    late = event("tool.executed", 99, ingested_at=START + timedelta(seconds=174))
    assert scene.hear(late, other(116)) == []
    assert scene.order().state == "contained"


def test_an_agent_that_dates_its_events_back_is_not_silent(scene: Scene) -> None:
    dated_back = event("tool.executed", 99, ingested_at=START + timedelta(seconds=176))
    [finding] = scene.hear(dated_back, other(116))
    assert finding.event_ids == (dated_back.event_id,)
    scene.proof.tick(us(177))
    assert scene.order().state == "failed"


def test_a_clock_ahead_of_arrival_is_no_violation(scene: Scene) -> None:
    arrived = START + timedelta(seconds=101)
    assert (
        scene.hear(event("tool.executed", 4000, ingested_at=arrived), other(4000, ingested_at=arrived)) == []
    )
    assert scene.order().state == "confirmed"


def test_activity_after_containment_is_found_too(scene: Scene) -> None:
    scene.hear(other(116))
    assert scene.order().state == "contained"
    assert len(scene.hear(event("tool.requested", 130))) == 1
    scene.proof.tick(us(131))
    assert scene.order().state == "failed"


def test_other_sessions_and_other_kinds_of_events_are_no_violation(scene: Scene) -> None:
    assert scene.hear(event("tool.executed", 116, session_id="s2"), event("task.completed", 117)) == []
    assert scene.order().state == "contained"


def test_replayed_events_are_no_signs_of_life(scene: Scene) -> None:
    marked = {"attributes": {"watchkeeper.replay": "1"}}
    assert scene.hear(event("tool.executed", 116, **marked), other(117, **marked)) == []
    assert scene.order().state == "confirmed"


def test_a_stopped_agent_may_not_act_in_any_session(state: State) -> None:
    scene = Scene(state, scope="agent", environment="production")
    scene.confirm()
    elsewhere = event("tool.executed", 116, session_id="s7", environment="staging")
    assert scene.hear(elsewhere) == []
    here = event("tool.executed", 117, session_id="s7", environment="production")
    assert len(scene.hear(here)) == 1


def test_a_crash_before_the_order_fails_finds_the_same_again(scene: Scene) -> None:
    [finding] = scene.hear(event("tool.executed", 116))
    proof = scene.another_proof()
    [again] = proof.tick(us(117))
    assert again.finding_id == finding.finding_id
    assert proof.tick(us(118)) == []
    assert scene.order().state == "failed"


def test_nothing_is_watched_while_no_order_is_open(state: State) -> None:
    proof = SilenceProof(state, desk(state), containment())
    assert proof.observe(frame(event("tool.executed", 1))) == []
    assert proof.tick(us(2)) == []
