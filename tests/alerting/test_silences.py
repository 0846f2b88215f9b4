"""Silences: what they hide, what they never hide, and how they end."""

from __future__ import annotations

import pytest

from monitor.alerting.alerts import AlertDesk
from monitor.alerting.own import own_finding
from monitor.alerting.silences import DAY, LONGEST, Pattern, SilenceError, end, in_force, preview, silence
from monitor.response.orders import OrderDesk
from monitor.settings import Settings
from monitor.store.state import Alert, AlertChange, Delivery, Silence, State, now
from tests.web.seeding import finding

RULE = "learned.tool-sequence"


@pytest.fixture
def desk(state: State) -> AlertDesk:
    return AlertDesk(state, {}, Settings.model_validate({"slack": {"token": "xoxb-1", "min_level": "low"}}))


def quiet(state: State, pattern: Pattern = Pattern(RULE), days: int = 7) -> Silence:  # noqa: B008
    with state.write() as session:
        return silence(session, pattern, "ana", "a batch job", now() + days * DAY)


def filed(state: State, desk: AlertDesk, name: str, **values: object) -> Alert:
    with state.write() as session:
        desk.file(session, [finding(name, **values)])
    with state.read() as session:
        session_id = values.get("session_id", f"session-{name}")
        return session.query(Alert).where(Alert.session_id == session_id).one()


def test_a_silenced_alert_is_kept_announced_to_nobody_and_says_why(state: State, desk: AlertDesk) -> None:
    made = quiet(state)
    alert = filed(state, desk, "one")
    assert alert.status == "suppressed"
    with state.read() as session:
        [change] = session.query(AlertChange).all()
        assert session.query(Delivery).count() == 0
    assert (change.actor, change.new, change.reason) == (f"silence:{made.id}", "suppressed", "a batch job")


@pytest.mark.parametrize(
    ("pattern", "status"),
    [
        (Pattern(RULE, "default", "research-agent"), "suppressed"),
        (Pattern(RULE, "default"), "suppressed"),
        (Pattern(RULE, "rival"), "new"),
        (Pattern(RULE, "default", "another-agent"), "new"),
        (Pattern("another-rule"), "new"),
    ],
)
def test_only_what_it_is_about_is_hidden(
    state: State, desk: AlertDesk, pattern: Pattern, status: str
) -> None:
    quiet(state, pattern)
    assert filed(state, desk, "one").status == status


def test_once_it_has_ended_the_next_finding_brings_the_alert_back(state: State, desk: AlertDesk) -> None:
    made = quiet(state)
    filed(state, desk, "one", session_id="s")
    assert filed(state, desk, "two", session_id="s").status == "suppressed"
    with state.write() as session:
        end(session, made.id, "bea")
    alert = filed(state, desk, "three", session_id="s")
    assert (alert.status, alert.count) == ("new", 3)
    with state.read() as session:
        assert session.query(Delivery).where(Delivery.kind == "alert").count() == 1
        assert in_force(session, now()) == []


def test_it_ends_by_itself(state: State, desk: AlertDesk) -> None:
    made = quiet(state)
    with state.write() as session:
        session.get_one(Silence, made.id).ends_at = now() - 1
    assert filed(state, desk, "one").status == "new"


def test_it_never_holds_back_a_stop(state: State, desk: AlertDesk) -> None:
    quiet(state)
    settings = Settings.model_validate({"containment": {"mode": "shadow"}}).containment
    orders = OrderDesk(state, settings, {RULE: {"action": "stop", "scope": "session"}})
    with state.write() as session:
        [alert] = desk.file(session, [finding("one", learned=False)])
        order = orders.consider(session, alert)
    assert alert.status == "suppressed"
    assert order is not None


def test_what_the_product_says_of_itself_cannot_be_silenced(state: State, desk: AlertDesk) -> None:
    told = own_finding("refit-failed", "No model was fitted", "why", "medium")
    with pytest.raises(SilenceError, match="of itself"):
        quiet(state, Pattern(told.rule_id))
    with state.write() as session:
        session.add(
            Silence(
                id="s_1", rule_id=told.rule_id, tenant=None, agent_id=None, owner="x", reason="x",
                created_at=1, ends_at=now() + DAY, ended_by=None,
            )
        )  # fmt: skip
        [alert] = desk.file(session, [told])
    assert alert.status == "new"


@pytest.mark.parametrize(
    ("reason", "lasts"), [(" ", DAY), ("x" * 2_001, DAY), ("x", 0), ("x", LONGEST + DAY)]
)
def test_it_needs_a_reason_and_an_end_within_ninety_days(state: State, reason: str, lasts: int) -> None:
    with pytest.raises(SilenceError), state.write() as session:
        silence(session, Pattern(RULE), "ana", reason, now() + lasts)


def test_ending_what_is_not_in_force_is_refused(state: State) -> None:
    made = quiet(state)
    with state.write() as session:
        end(session, made.id, "bea")
    with pytest.raises(SilenceError, match="in force"), state.write() as session:
        end(session, made.id, "bea")


def test_the_preview_counts_seven_days_and_what_was_true(state: State, desk: AlertDesk) -> None:
    for number in range(4):
        alert = filed(state, desk, f"n{number}")
        with state.write() as session:
            if number == 0:
                desk.change(session, alert.id, "ana", status="closed", verdict="true_positive", reason="bad")
            if number == 1:
                session.get_one(Alert, alert.id).created_at -= 8 * DAY
    filed(state, desk, "other", agent_id="other")
    with state.read() as session:
        seen = preview(session, Pattern(RULE, "default", "research-agent"))
        assert preview(session, Pattern(RULE)).hidden == 4
    assert seen.words() == "would have hidden 3 alerts in 7 days, 1 of them true"
