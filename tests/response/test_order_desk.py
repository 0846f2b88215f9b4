from __future__ import annotations

import msgspec
import pytest

from monitor.response.body import frozen_body
from monitor.response.orders import OrderDesk
from monitor.response.states import IllegalMove, OrderError
from monitor.settings import ContainmentSettings, Mode
from monitor.store.state import Order, State, now
from tests.response.making import RESPONSES, alert, ask_to_stop, consider, desk, moves, pages, read
from tests.response.responders import RULE, containment

HOUR = 3_600_000_000


def test_a_rule_with_a_response_orders_a_stop(state: State) -> None:
    order = consider(desk(state), alert())
    assert order is not None
    assert (order.state, order.action, order.scope, order.session_id) == (
        "requested",
        "stop",
        "session",
        "s1",
    )
    assert order.automatic
    assert moves(state, order.request_id) == ["requested"]
    assert pages(state) == []


def test_the_body_is_the_contract_and_its_bytes_do_not_change(state: State) -> None:
    order = consider(desk(state), alert())
    assert order is not None
    call = msgspec.json.decode(order.body)
    assert call["type"] == "agent.stop.requested"
    data = call["data"]
    assert data["request_id"] == order.request_id
    assert data["target"] == {
        "scope": "session",
        "tenant": "default",
        "environment": "production",
        "agent_id": "invoice-agent",
        "session_id": "s1",
        "tool_name": None,
    }
    assert data["initiated_by"] == {"type": "rule", "id": RULE}
    assert (data["rule_id"], data["alert_id"], data["severity"]) == (RULE, "a-1", "high")
    assert (data["mode"], data["dry_run"], data["approved_by"]) == ("immediate", False, None)
    assert order.body == read(state, order.request_id).body == frozen_body(read(state, order.request_id))


def test_the_same_alert_again_is_the_same_order(state: State) -> None:
    orders = desk(state)
    first, again = consider(orders, alert()), consider(orders, alert())
    assert first is not None
    assert again is not None
    assert first.request_id == again.request_id
    assert moves(state, first.request_id) == ["requested"]


def test_another_alert_about_a_target_with_an_open_order_makes_no_second_one(state: State) -> None:
    orders = desk(state)
    first, second = consider(orders, alert("a-1")), consider(orders, alert("a-2"))
    assert first is not None
    assert second is not None
    assert first.request_id == second.request_id


def test_the_same_agent_in_another_environment_is_another_target(state: State) -> None:
    orders = desk(state)
    first = consider(orders, alert("a-1"))
    second = consider(orders, alert("a-2", environment="staging"))
    assert first is not None
    assert second is not None
    assert first.request_id != second.request_id


def test_an_alert_about_what_happened_before_a_proven_stop_orders_nothing_new(state: State) -> None:
    orders = desk(state)
    first = consider(orders, alert("a-1"))
    assert first is not None
    with state.write() as session:
        order = session.get_one(Order, first.request_id)
        for step in ("sent", "confirmed", "contained"):
            orders.move(session, order, step, "test", "step", sent_at=now(), confirmed_at=now())
    late = consider(orders, alert("a-2"))
    assert late is not None
    assert late.request_id == first.request_id
    later = consider(orders, alert("a-3", last_event_at=now() + HOUR))
    assert later is not None
    assert later.state == "held"
    assert later.detail is not None
    assert later.detail.startswith("cool-down")


@pytest.mark.parametrize("columns", [{"replayed": True}, {"rule_id": "rule-without-response"}])
def test_a_replayed_alert_and_a_rule_without_response_order_nothing(
    state: State, columns: dict[str, object]
) -> None:
    assert consider(desk(state), alert(**columns)) is None


def test_mode_off_orders_nothing(state: State) -> None:
    assert consider(desk(state, containment(mode=Mode.OFF)), alert()) is None


def test_shadow_is_the_default_and_only_notes_what_would_have_been_done(state: State) -> None:
    order = consider(desk(state, ContainmentSettings()), alert())
    assert order is not None
    assert (order.state, order.detail) == ("shadow", "shadow: would have been sent")
    assert pages(state) == []


def test_a_held_order_says_which_guardrail_holds_it_and_pages(state: State) -> None:
    order = consider(desk(state, containment(protected=["invoice-*"])), alert())
    assert order is not None
    assert order.state == "held"
    assert order.detail == "protected: only a human may stop agents like 'invoice-*'"
    assert pages(state) == ["order-held"]


def test_an_approved_order_leaves_with_the_name_of_who_approved_it(state: State) -> None:
    orders = desk(state, containment(mode=Mode.WARN))
    held = consider(orders, alert())
    assert held is not None
    with state.write() as session:
        orders.approve(session, held.request_id, "ada", "seen it")
    order = read(state, held.request_id)
    assert (order.state, order.automatic, order.detail) == ("requested", False, None)
    assert msgspec.json.decode(order.body)["data"]["approved_by"] == "ada"
    assert order.expires_at <= now() + 60_000_000
    assert moves(state, held.request_id) == ["held", "requested"]


def test_a_learned_finding_or_a_provisional_identity_never_stops_by_itself(state: State) -> None:
    orders = desk(state)
    learned = consider(orders, alert("a-1", rule_id="learned", learned=True))
    provisional = consider(orders, alert("a-2", agent_id="new-agent", identity="provisional"))
    assert [o.state for o in (learned, provisional) if o] == ["held", "held"]


def test_a_rule_for_a_session_never_widens_to_the_agent_by_itself(state: State) -> None:
    order = consider(desk(state), alert(session_id=None))
    assert order is not None
    assert (order.state, order.scope, order.session_id) == ("held", "agent", None)


def test_the_cap_of_the_settings_holds_the_next_order(state: State) -> None:
    orders = desk(state, containment(max_stops_per_hour=2))
    made = [consider(orders, alert(f"a-{n}", agent_id=f"agent-{n}")) for n in range(3)]
    assert [order.state for order in made if order] == ["requested", "requested", "held"]
    assert made[2] is not None
    assert made[2].detail == (
        "cap: automatic orders against 2 other agents of this tenant in the last hour, 2 agents allowed"
    )


def test_many_stops_of_one_agent_count_once_for_the_cap_of_others(state: State) -> None:
    orders = desk(state, containment(max_stops_per_hour=2))
    noisy = [consider(orders, alert(f"n-{n}", agent_id="noisy", session_id=f"s{n}")) for n in range(5)]
    quiet = consider(orders, alert("q"))
    over = consider(orders, alert("o", agent_id="third"))
    assert [order.state for order in [*noisy, quiet, over] if order] == ["requested"] * 6 + ["held"]


def test_the_cap_of_one_tenant_is_not_used_up_by_another(state: State) -> None:
    orders = desk(state, containment(max_stops_per_hour=1))
    consider(orders, alert("a-1", agent_id="theirs", tenant="rival"))
    ours = consider(orders, alert("a-2"))
    assert ours is not None
    assert ours.state == "requested"


def held_and_freed(state: State, orders: OrderDesk) -> Order:
    """An order held while the agent was protected, which it no longer is."""
    strict = desk(state, containment(protected=["invoice-*"]))
    held = consider(strict, alert("a-1"))
    assert held is not None
    assert held.state == "held"
    return held


def test_a_held_order_does_not_keep_back_a_stop_that_nothing_holds(state: State) -> None:
    orders = desk(state)
    held = held_and_freed(state, orders)
    sent = consider(orders, alert("a-2"))
    assert sent is not None
    assert (sent.state, sent.request_id != held.request_id) == ("requested", True)
    assert read(state, held.request_id).state == "cancelled"
    assert str(read(state, held.request_id).detail).startswith(f"replaced by order {sent.request_id}")


def test_the_same_alert_that_nothing_holds_any_more_orders_under_a_new_key(state: State) -> None:
    orders = desk(state)
    held = held_and_freed(state, orders)
    sent = consider(orders, alert("a-1"))
    assert sent is not None
    assert (sent.state, read(state, held.request_id).state) == ("requested", "cancelled")
    again = consider(orders, alert("a-1"))
    assert again is not None
    assert again.request_id == sent.request_id


def test_a_second_order_that_would_be_held_too_is_the_held_one(state: State) -> None:
    orders = desk(state, containment(protected=["invoice-*"]))
    first, second = consider(orders, alert("a-1")), consider(orders, alert("a-2"))
    assert first is not None
    assert second is not None
    assert (first.state, first.request_id) == ("held", second.request_id)


def test_a_stop_of_a_session_leaves_the_held_stop_of_its_agent_to_a_human(state: State) -> None:
    orders = desk(state)
    wide = consider(orders, alert("a-1", rule_id="learned", learned=True))
    narrow = consider(orders, alert("a-2"))
    assert wide is not None
    assert narrow is not None
    assert (read(state, wide.request_id).state, narrow.state) == ("held", "requested")


def test_an_alert_without_environment_is_covered_by_an_order_for_any(state: State) -> None:
    orders = desk(state)
    first = consider(orders, alert("a-1"))
    second = consider(orders, alert("a-2", environment=None))
    assert first is not None
    assert second is not None
    assert first.request_id == second.request_id


def finished(state: State, orders: OrderDesk, end: str, age_seconds: int) -> Order:
    """The order of alert a-1, at this end, made so long ago."""
    order = consider(orders, alert("a-1"))
    assert order is not None
    with state.write() as session:
        row = session.get_one(Order, order.request_id)
        if end not in ("cancelled", "expired", "failed"):
            orders.move(session, row, "sent", "test", "step", sent_at=row.created_at)
        orders.move(session, row, end, "test", "step")
        row.created_at -= age_seconds * 1_000_000
        return row


@pytest.mark.parametrize(
    ("end", "age_seconds", "further"),
    [
        ("failed", 301, True),
        ("expired", 301, True),
        ("failed", 299, False),
        ("cancelled", 301, False),
        ("unconfirmed", 301, False),
        ("partial", 301, False),
    ],
)
def test_an_alert_that_goes_on_orders_again_after_an_end_without_effect(
    state: State, end: str, age_seconds: int, further: bool
) -> None:
    orders = desk(state)
    first = finished(state, orders, end, age_seconds)
    again = consider(orders, alert("a-1"))
    assert again is not None
    assert (again.request_id != first.request_id) is further
    assert (again.state == "requested") is further


def test_what_was_only_noted_is_ordered_once_the_mode_allows_it(state: State) -> None:
    shadow = desk(state, containment(mode=Mode.SHADOW, cooldown_seconds=0))
    noted = consider(shadow, alert())
    again = consider(shadow, alert())
    sent = consider(desk(state, containment(cooldown_seconds=0)), alert())
    assert noted is not None
    assert again is not None
    assert sent is not None
    assert (again.request_id, sent.state) == (noted.request_id, "requested")


def test_a_human_order_after_a_held_one_ran_out_is_a_new_one(state: State) -> None:
    orders = desk(state, containment(mode=Mode.WARN))
    held = consider(orders, alert())
    assert held is not None
    with state.write() as session:
        session.get_one(Order, held.request_id).expires_at = 1
    order = ask_to_stop(orders, environment="production")
    assert (order.state, order.request_id != held.request_id) == ("requested", True)


def test_orders_of_humans_and_held_or_noted_ones_do_not_count_for_the_cap(state: State) -> None:
    orders = desk(
        state, containment(max_stops_per_hour=1, agents={"careful-*": Mode.WARN, "quiet-*": Mode.SHADOW})
    )
    consider(orders, alert("a-1", agent_id="careful-agent"))
    consider(orders, alert("a-2", agent_id="quiet-agent"))
    ask_to_stop(orders, agent_id="some-agent")
    order = consider(orders, alert("a-3"))
    assert order is not None
    assert order.state == "requested"


def test_a_human_order_passes_every_guardrail(state: State) -> None:
    orders = desk(state, containment(mode=Mode.OFF, protected=["*"], max_stops_per_hour=0))
    order = ask_to_stop(orders)
    assert (order.state, order.automatic, order.mode, order.initiator_id) == (
        "requested",
        False,
        "human",
        "ada",
    )


def test_a_human_order_for_a_target_in_flight_is_that_order(state: State) -> None:
    orders = desk(state)
    assert ask_to_stop(orders).request_id == ask_to_stop(orders).request_id
    assert ask_to_stop(orders, scope="agent").request_id != ask_to_stop(orders).request_id


def test_a_human_order_for_a_held_target_approves_what_is_held(state: State) -> None:
    orders = desk(state, containment(mode=Mode.WARN))
    held = consider(orders, alert())
    order = ask_to_stop(orders, environment="production")
    assert held is not None
    assert (order.request_id, order.state) == (held.request_id, "requested")


@pytest.mark.parametrize(
    "fault",
    [
        {"reason": "  "},
        {"reason": "x" * 2001},
        {"agent_id": ""},
        {"session_id": None},
        {"action": "pause"},
        {"scope": "fleet"},
        {"actor": ""},
        {"agent_id": "x" * 513},
    ],
)
def test_an_incomplete_human_order_is_refused(state: State, fault: dict[str, object]) -> None:
    with pytest.raises(OrderError):
        ask_to_stop(desk(state), **fault)


def test_a_sent_order_cannot_be_cancelled_nor_a_cancelled_one_sent(state: State) -> None:
    orders = desk(state)
    sent, cancelled = ask_to_stop(orders), ask_to_stop(orders, session_id="s2")
    with state.write() as session:
        orders.move(session, session.get_one(Order, sent.request_id), "sent", "worker", "to main")
        orders.cancel(session, cancelled.request_id, "ada", "wrong session")
    with pytest.raises(IllegalMove, match="cannot become cancelled"), state.write() as session:
        orders.cancel(session, sent.request_id, "ada", "too late")
    with pytest.raises(IllegalMove), state.write() as session:
        orders.move(session, session.get_one(Order, cancelled.request_id), "sent", "worker", "to main")
    assert moves(state, cancelled.request_id) == ["requested", "cancelled"]


def test_approving_needs_a_held_order_and_a_reason(state: State) -> None:
    orders = desk(state, containment(mode=Mode.WARN))
    held = consider(orders, alert())
    assert held is not None
    for request_id, reason in ((held.request_id, ""), ("nowhere", "why")):
        with pytest.raises(OrderError), state.write() as session:
            orders.approve(session, request_id, "ada", reason)
    assert read(state, held.request_id).state == "held"


def test_a_response_that_cannot_be_carried_out_is_refused_at_the_start(state: State) -> None:
    with pytest.raises(ValueError, match="rule r1"):
        OrderDesk(state, containment(), {**RESPONSES, "r1": {"action": "stop", "scope": "fleet"}})
