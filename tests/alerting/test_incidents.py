"""Incidents: which alerts come together by themselves, and what people do with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import DatabaseError

from monitor.alerting.alerts import AlertDesk
from monitor.alerting.incidents import IncidentDesk, IncidentError, StaleIncidentError
from monitor.alerting.own import own_finding
from monitor.alerting.silences import DAY, Pattern, silence
from monitor.people.accounts import People
from monitor.settings import Settings
from monitor.store.state import Alert, AlertChange, Control, Incident, IncidentEntry, State, now
from tests.web.seeding import finding

HOUR = 3600


@pytest.fixture
def desk(state: State) -> AlertDesk:
    return AlertDesk(state, {}, Settings())


@pytest.fixture
def incidents(desk: AlertDesk) -> IncidentDesk:
    return IncidentDesk(desk)


@pytest.fixture
def filed(state: State, desk: AlertDesk) -> Callable[..., Alert]:
    def file(name: str, **values: object) -> Alert:
        with state.write() as session:
            return desk.file(session, [finding(name, **values)])[0]

    return file


def known(state: State, incident_id: str | None) -> Incident:
    with state.read() as session:
        return session.get_one(Incident, incident_id)


def log(state: State, incident_id: str | None) -> list[tuple[str, str]]:
    with state.read() as session:
        query = select(IncidentEntry).where(IncidentEntry.incident_id == incident_id)
        return [(each.actor, each.kind) for each in session.scalars(query.order_by(IncidentEntry.id))]


def test_alerts_of_one_session_are_one_incident_however_far_apart(
    state: State, filed: Callable[..., Alert]
) -> None:
    first = filed("a", session_id="s", ago=30 * HOUR, level="low", title="mild")
    second = filed("b", session_id="s", rule_id="other", level="critical", title="grave")
    assert first.incident_id == second.incident_id
    incident = known(state, first.incident_id)
    assert (incident.alerts, incident.level, incident.title) == (2, "critical", "grave")
    assert incident.first_event_at == first.first_event_at
    assert incident.last_event_at == second.last_event_at


@pytest.mark.parametrize(("apart", "together"), [(0.9, True), (1.1, False)])
def test_other_sessions_of_the_agent_join_within_an_hour(
    filed: Callable[..., Alert], apart: float, together: bool
) -> None:
    first = filed("a", ago=int(apart * HOUR))
    assert (filed("b").incident_id == first.incident_id) is together


def test_events_that_come_late_join_too(filed: Callable[..., Alert]) -> None:
    first = filed("a")
    assert filed("b", ago=HOUR // 2).incident_id == first.incident_id


def test_a_story_takes_no_further_session_after_a_day(filed: Callable[..., Alert]) -> None:
    first = filed("a", ago=30 * HOUR)
    story = [filed(f"b{step}", ago=30 * HOUR - step * HOUR // 2).incident_id for step in range(1, 50)]
    assert story[:47] == [first.incident_id] * 47
    assert story[48] != first.incident_id


@pytest.mark.parametrize(
    "other", [{"agent_id": "another"}, {"tenant": "rival"}, {"environment": "production"}]
)
def test_agents_tenants_and_environments_stay_apart(
    filed: Callable[..., Alert], other: dict[str, str]
) -> None:
    assert filed("a", session_id="s").incident_id != filed("b", session_id="s", **other).incident_id


def test_alerts_of_one_batch_come_together_as_one_by_one(state: State, desk: AlertDesk) -> None:
    batch = [
        finding("a", session_id="s"),
        finding("b", session_id="s", rule_id="other", level="high"),
        finding("c", session_id="t"),
        finding("d", agent_id="another"),
        finding("e", session_id="s"),
    ]
    with state.write() as session:
        alerts = desk.file(session, batch)
    assert len({alert.incident_id for alert in alerts}) == 2
    incident = known(state, alerts[0].incident_id)
    assert (incident.alerts, incident.level) == (3, "high")
    with state.write() as session:
        assert desk.file(session, batch) == []
    assert known(state, incident.id).alerts == 3


def test_a_rising_alert_raises_its_incident(state: State, filed: Callable[..., Alert]) -> None:
    alert = filed("a", session_id="s")
    filed("b", session_id="s", level="critical", title="worse")
    incident = known(state, alert.incident_id)
    assert (incident.alerts, incident.level, incident.title) == (1, "critical", "worse")


def test_what_is_silenced_replayed_or_our_own_is_in_none_until_the_silence_ends(
    state: State, desk: AlertDesk, filed: Callable[..., Alert]
) -> None:
    with state.write() as session:
        made = silence(session, Pattern("noisy"), "ana", "batch job", now() + DAY)
        own = desk.file(session, [own_finding("disk", "full", "full")])[0]
    hidden = filed("a", rule_id="noisy", session_id="s")
    assert {own.incident_id, hidden.incident_id, filed("b", replayed=True).incident_id} == {None}
    with state.write() as session:
        session.get_one(type(made), made.id).ends_at = now()
    assert filed("c", rule_id="noisy", session_id="s").incident_id is not None


def test_a_pattern_that_comes_back_opens_a_new_incident_that_points_to_the_old(
    state: State, incidents: IncidentDesk, filed: Callable[..., Alert]
) -> None:
    first = filed("a", session_id="s")
    with state.write() as session:
        incidents.close(session, str(first.incident_id), "ana", "true_positive", "contained")
    second = filed("b", session_id="s")
    assert second.incident_id != first.incident_id
    assert known(state, second.incident_id).previous_id == first.incident_id


def test_closing_gives_every_open_alert_the_verdict_and_detection_hears_of_it(
    state: State, desk: AlertDesk, incidents: IncidentDesk, filed: Callable[..., Alert]
) -> None:
    alerts = [filed(name) for name in "abc"]
    with state.write() as session:
        desk.change(
            session, alerts[0].id, "bea", status="closed", verdict="false_positive", reason="own test"
        )
        incidents.close(session, str(alerts[0].incident_id), "ana", "true_positive", "hijacked")
    with state.read() as session:
        assert [session.get_one(Alert, alert.id).verdict for alert in alerts] == [
            "false_positive", "true_positive", "true_positive",
        ]  # fmt: skip
        told = session.query(Control).filter_by(kind="verdict").count()
        reasons = {change.reason for change in session.query(AlertChange).filter_by(actor="ana")}
    assert (told, reasons) == (3, {"hijacked"})
    incident = known(state, alerts[0].incident_id)
    assert (incident.status, incident.verdict) == ("closed", "true_positive")
    assert incident.closed_at is not None


def test_an_incident_that_nobody_took_ends_with_its_last_alert(
    state: State, desk: AlertDesk, filed: Callable[..., Alert]
) -> None:
    one, other = filed("a"), filed("b")
    for alert, verdict in ((one, "true_positive"), (other, "duplicate")):
        with state.write() as session:
            desk.change(session, alert.id, "ana", status="closed", verdict=verdict, reason="seen")
    incident = known(state, one.incident_id)
    assert (incident.status, incident.verdict) == ("closed", "true_positive")
    assert log(state, one.incident_id) == [("watchkeeper", "opened"), ("ana", "closed")]


def test_one_that_somebody_took_stays_until_it_is_closed(
    state: State, desk: AlertDesk, incidents: IncidentDesk, filed: Callable[..., Alert]
) -> None:
    alert = filed("a")
    with state.write() as session:
        incidents.take(session, str(alert.incident_id), "ana")
        desk.change(session, alert.id, "ana", status="closed", verdict="test", reason="a drill")
    assert known(state, alert.incident_id).status == "in_progress"


def test_merged_alerts_are_in_the_other_one_and_the_first_says_where(
    state: State, incidents: IncidentDesk, filed: Callable[..., Alert]
) -> None:
    one, other = filed("a", level="critical"), filed("b", agent_id="another")
    with state.write() as session:
        incidents.merge(session, str(one.incident_id), str(other.incident_id), "ana", "one campaign")
    first, second = known(state, one.incident_id), known(state, other.incident_id)
    assert (first.status, first.merged_into, first.alerts) == ("closed", second.id, 0)
    assert (second.status, second.alerts, second.level) == ("open", 2, "critical")
    assert log(state, first.id)[-1] == log(state, second.id)[-1] == ("ana", "merged")
    again = filed("c", rule_id="other", session_id=one.session_id)
    assert again.incident_id not in (first.id, None)


def test_split_off_alerts_are_an_incident_of_their_own_and_their_session_follows(
    state: State, incidents: IncidentDesk, filed: Callable[..., Alert]
) -> None:
    one, other = filed("a", session_id="s"), filed("b", session_id="t", level="high")
    with state.write() as session:
        fresh = incidents.split(session, str(one.incident_id), [other.id], "ana", "another story")
    assert known(state, one.incident_id).level == "medium"
    assert (fresh.alerts, fresh.level) == (1, "high")
    assert filed("c", rule_id="more", session_id="t").incident_id == fresh.id
    assert filed("d", rule_id="more", session_id="s").incident_id == one.incident_id
    with state.write() as session, pytest.raises(IncidentError, match="at least one"):
        incidents.split(session, fresh.id, [other.id, *_of(state, fresh.id)], "ana", "all of it")


def _of(state: State, incident_id: str) -> list[str]:
    with state.read() as session:
        return list(session.scalars(select(Alert.id).where(Alert.incident_id == incident_id)))


def test_chosen_alerts_are_gathered_and_what_is_left_without_any_is_merged(
    state: State, incidents: IncidentDesk, filed: Callable[..., Alert]
) -> None:
    alerts = [filed("a"), filed("b", agent_id="another"), filed("c", agent_id="third", replayed=True)]
    with state.write() as session:
        made = incidents.gather(session, [alert.id for alert in alerts], "ana")
    assert made.alerts == 3
    assert known(state, alerts[0].incident_id).merged_into == made.id
    with state.write() as session:
        assert incidents.gather(session, [alerts[0].id, alerts[2].id], "ana").id == made.id


def test_a_hand_over_needs_a_note_and_somebody_who_may_work_on_it(
    state: State, incidents: IncidentDesk, filed: Callable[..., Alert]
) -> None:
    alert = filed("a")
    for name, role in (("bea", "analyst"), ("vic", "viewer")):
        People(state).add(name, role, "admin")
    for to, note in (("vic", "all is known"), ("nobody", "all is known"), ("bea", "  ")):
        with state.write() as session, pytest.raises(IncidentError):
            incidents.hand_over(session, str(alert.incident_id), "ana", to, note)
    with state.write() as session:
        incidents.hand_over(session, str(alert.incident_id), "ana", "bea", "known: …; open: …")
    incident = known(state, alert.incident_id)
    assert (incident.owner, incident.status, incident.version) == ("bea", "in_progress", 2)


def test_of_two_people_the_second_is_told_to_look_again(
    state: State, incidents: IncidentDesk, filed: Callable[..., Alert]
) -> None:
    incident_id = str(filed("a").incident_id)
    with state.write() as session:
        incidents.take(session, incident_id, "ana", 1)
    with state.write() as session, pytest.raises(StaleIncidentError, match="version 2"):
        incidents.close(session, incident_id, "bea", "true_positive", "mine", 1)
    with state.write() as session:
        incidents.comment(session, incident_id, "bea", "seen the same elsewhere")
        incidents.give_back(session, incident_id, "ana", "shift ends", 2)
    assert known(state, incident_id).owner is None


def test_the_log_cannot_be_rewritten(state: State, filed: Callable[..., Alert]) -> None:
    filed("a")
    with pytest.raises(DatabaseError, match="append-only"), state.write() as session:
        session.execute(update(IncidentEntry).values(text="nothing happened"))
