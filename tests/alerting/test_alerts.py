from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from detectors.base import LEVELS
from monitor.alerting.alerts import AlertDesk, AlertError, NoSuchAlertError, StaleAlertError
from monitor.alerting.merging import MAX_EVENT_IDS
from monitor.alerting.words import STATUSES, TRANSITIONS, VERDICTS
from monitor.settings import Settings
from monitor.store.migrate import migrate_state
from monitor.store.state import Alert, AlertChange, AlertFinding, Control, Delivery, State
from tests.alerting.conftest import RULES, finding

File = Callable[..., list[Alert]]
Change = Callable[..., Alert]


def all_of(state: State, table: Any) -> list[Any]:
    with state.read() as session:
        return list(session.scalars(select(table)))


def the_alert(state: State) -> Alert:
    (alert,) = all_of(state, Alert)
    assert isinstance(alert, Alert)
    return alert


def close(change: Change, alert: Alert) -> None:
    change(alert.id, "known", status="closed", verdict="benign_positive")


def test_a_finding_becomes_a_new_alert_with_its_runbook(state: State, file: File) -> None:
    (alert,) = file(finding())
    stored = the_alert(state)
    assert stored.id == alert.id
    assert (stored.status, stored.verdict, stored.count, stored.version) == ("new", None, 1, 1)
    assert stored.runbook == list(RULES["exfiltration"].runbook)
    assert stored.evidence == {"matched": {"target": "evil.example"}}


def test_a_learners_finding_without_a_rule_has_an_empty_runbook(file: File) -> None:
    (alert,) = file(finding(rule_id="drift", detector="drift", learned=True))
    assert alert.runbook == []


def test_filing_the_same_findings_again_changes_nothing(state: State, file: File) -> None:
    findings = [finding("f1"), finding("f2", level="critical"), finding("f3", session_id="s2")]
    file(*findings)
    before = [(a.id, a.count, a.level, a.version) for a in all_of(state, Alert)]
    assert file(*findings) == []
    assert [(a.id, a.count, a.level, a.version) for a in all_of(state, Alert)] == before
    assert len(all_of(state, AlertFinding)) == 3


def test_one_finding_twice_in_a_batch_counts_once(state: State, file: File) -> None:
    file(finding(), finding())
    assert the_alert(state).count == 1


def test_the_same_findings_give_the_same_ids_however_they_are_batched(
    state: State, desk: AlertDesk, tmp_path_factory: pytest.TempPathFactory, settings: Settings
) -> None:
    other_file = tmp_path_factory.mktemp("other") / "state.db"
    migrate_state(other_file)
    other = State(other_file)
    findings = [finding(f"f{n}", session_id=f"s{n % 3}", timestamp=n) for n in range(9)]
    with state.write() as session:
        desk.file(session, findings)
    for one in findings:
        with other.write() as session:
            desk.file(session, [one])

    def content(of: State) -> list[Any]:
        return sorted((a.id, a.count, a.event_ids, a.evidence) for a in all_of(of, Alert))

    assert content(state) == content(other)
    other.close()


def test_findings_of_one_story_join_one_alert(state: State, file: File) -> None:
    file(finding("f1", timestamp=5))
    assert file(finding("f2", timestamp=9, evidence={"matched": {"target": "worse.example"}})) == []
    assert file(finding("f3", timestamp=2, evidence={"matched": {"target": "third.example"}})) == []
    alert = the_alert(state)
    assert (alert.count, alert.first_event_at, alert.last_event_at) == (3, 2, 9)
    assert alert.event_ids == ["event of f1", "event of f2", "event of f3"]
    assert alert.evidence["matched"] == {"target": "evil.example"}
    assert alert.evidence["latest"]["matched"] == {"target": "third.example"}
    assert alert.version == 1, "a join is no reason to make an analyst look again"


@pytest.mark.parametrize(
    "difference",
    [
        {"rule_id": "other"},
        {"tenant": "acme"},
        {"agent_id": "mail-agent"},
        {"session_id": "s2"},
        {"environment": "staging"},
        {"replayed": True},
        {"session_id": None, "group": {"tool_name": "bash"}},
    ],
)
def test_findings_of_other_stories_are_other_alerts(
    state: State, file: File, difference: dict[str, Any]
) -> None:
    file(finding("f1"), finding("f2", **difference))
    assert len(all_of(state, Alert)) == 2


def test_without_a_session_the_group_decides(state: State, file: File) -> None:
    file(
        finding("f1", session_id=None, group={"tool_name": "bash", "agent_id": "a"}),
        finding("f2", session_id=None, group={"agent_id": "a", "tool_name": "bash"}),
        finding("f3", session_id=None, group={"tool_name": "curl", "agent_id": "a"}),
    )
    assert sorted(alert.count for alert in all_of(state, Alert)) == [1, 2]


def test_two_orders_that_wait_in_one_session_are_two_alerts(state: State, file: File) -> None:
    held = {"detector": "watchkeeper", "rule_id": "watchkeeper.order-held"}
    file(finding("f1", group={"request_id": "1"}, **held), finding("f2", group={"request_id": "2"}, **held))
    assert len(all_of(state, Alert)) == 2


def test_a_graver_finding_raises_the_alert_and_is_reported(state: State, file: File) -> None:
    (first,) = file(finding("f1", level="medium"))
    (raised,) = file(finding("f2", level="critical", reason="Now it is worse."), finding("f3", level="low"))
    assert raised.id == first.id
    alert = the_alert(state)
    assert (alert.level, alert.reason, alert.count, alert.version) == ("critical", "Now it is worse.", 3, 2)
    (row,) = all_of(state, AlertChange)
    assert (row.actor, row.field, row.old, row.new) == ("watchkeeper", "level", "medium", "critical")


def test_an_alert_may_rise_in_the_batch_that_opens_it(state: State, file: File) -> None:
    (alert,) = file(
        finding("f1", level="low"), finding("f2", level="medium"), finding("f3", level="critical")
    )
    assert (alert.level, alert.count) == ("critical", 3)
    assert [row.new for row in all_of(state, AlertChange)] == ["medium", "critical"]
    assert [delivery.payload["level"] for delivery in all_of(state, Delivery)] == ["critical"]


def test_a_closed_alert_is_never_reopened_and_the_next_points_to_it(
    state: State, file: File, change: Change
) -> None:
    (first,) = file(finding("f1"))
    close(change, first)
    (second,) = file(finding("f2"))
    assert file(finding("f3")) == []
    close(change, second)
    (third,) = file(finding("f4"))
    assert second.evidence["previous_alert_id"] == first.id
    assert third.evidence["previous_alert_id"] == second.id
    closed, joined, fresh = sorted(all_of(state, Alert), key=lambda alert: int(alert.created_at))
    assert [closed.count, joined.count, fresh.count] == [1, 2, 1]
    assert [closed.status, joined.status, fresh.status] == ["closed", "closed", "new"]


def test_an_alert_names_a_bounded_number_of_events_the_first_and_the_latest(state: State, file: File) -> None:
    names = [f"e{n}" for n in range(10 * 50)]
    for n in range(10):
        file(finding(f"f{n}", event_ids=tuple(names[n * 50 : n * 50 + 50])))
    half = MAX_EVENT_IDS // 2
    assert the_alert(state).event_ids == names[:half] + names[-half:]


def test_many_findings_at_once_are_filed(state: State, file: File) -> None:
    findings = [finding(f"f{n}", session_id=f"s{n % 40}") for n in range(1200)]
    assert len(file(*findings)) == 40
    assert file(*findings) == []
    assert sum(alert.count for alert in all_of(state, Alert)) == 1200


def test_a_failing_batch_leaves_nothing(state: State, desk: AlertDesk) -> None:
    def broken_off() -> None:
        with state.write() as session:
            desk.file(session, [finding()])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_off()
    assert all_of(state, Alert) == []
    assert all_of(state, Delivery) == []


# --- messages -----------------------------------------------------------------------------


def test_a_grave_alert_enqueues_one_message(state: State, file: File) -> None:
    (alert,) = file(finding())
    file(finding("f2"))
    (delivery,) = all_of(state, Delivery)
    assert (delivery.channel, delivery.kind, delivery.alert_id) == ("slack", "alert", alert.id)
    assert delivery.state == "waiting"


@pytest.mark.parametrize("level", LEVELS)
def test_messages_begin_at_the_level_that_the_site_sets(
    state: State, file: File, settings: Settings, level: str
) -> None:
    file(finding(level=level))
    loud = LEVELS.index(level) >= LEVELS.index(settings.slack.min_level)
    assert len(all_of(state, Delivery)) == loud


def test_an_alert_that_rises_to_the_level_is_announced_then(state: State, file: File) -> None:
    file(finding("f1", level="low"))
    file(finding("f2", level="high"))
    assert [delivery.kind for delivery in all_of(state, Delivery)] == ["alert"]


def test_an_announced_alert_that_rises_updates_its_thread(state: State, file: File) -> None:
    file(finding("f1", level="medium"))
    file(finding("f2", level="high"))
    head, update = sorted(all_of(state, Delivery), key=lambda delivery: str(delivery.kind))
    assert (head.kind, update.kind) == ("alert", "update")
    assert "medium → high" in update.payload["text"]


def test_a_replayed_finding_messages_nobody(state: State, file: File, change: Change) -> None:
    (alert,) = file(finding(replayed=True, level="critical"))
    change(alert.id, status="acknowledged")
    assert all_of(state, Delivery) == []


def test_without_slack_nothing_is_enqueued(state: State) -> None:
    desk = AlertDesk(state, {}, Settings())
    with state.write() as session:
        (alert,) = desk.file(session, [finding()])
        desk.change(session, alert.id, "ana", status="acknowledged", reason="")
    assert all_of(state, Delivery) == []


def test_whoever_waits_is_woken(desk: AlertDesk) -> None:
    woken: list[str] = []
    desk.on_wake(lambda: woken.append("outbox"))
    desk.wake()
    assert woken == ["outbox"]


# --- triage -------------------------------------------------------------------------------


@pytest.fixture
def alert(file: File) -> Alert:
    (filed,) = file(finding())
    return filed


def test_an_alert_is_worked_through_and_every_step_is_written_down(
    state: State, alert: Alert, change: Change
) -> None:
    change(alert.id, status="acknowledged", owner="ana")
    change(alert.id, status="in_progress")
    change(alert.id, "files were public", status="closed", verdict="benign_positive")
    stored = the_alert(state)
    assert (stored.status, stored.verdict, stored.owner, stored.version) == (
        "closed",
        "benign_positive",
        "ana",
        4,
    )
    steps = [(row.actor, row.field, row.old, row.new, row.reason) for row in all_of(state, AlertChange)]
    assert steps == [
        ("ana", "status", "new", "acknowledged", ""),
        ("ana", "owner", None, "ana", ""),
        ("ana", "status", "acknowledged", "in_progress", ""),
        ("ana", "status", "in_progress", "closed", "files were public"),
        ("ana", "verdict", None, "benign_positive", "files were public"),
    ]


def test_every_change_is_told_in_the_thread(state: State, alert: Alert, change: Change) -> None:
    change(alert.id, "mine", status="acknowledged", owner="ana")
    (update,) = [row for row in all_of(state, Delivery) if row.kind == "update"]
    assert update.payload["text"] == "status: new → acknowledged, owner: none → ana by ana: mine"


def test_a_verdict_goes_to_the_spool(state: State, alert: Alert, change: Change) -> None:
    change(alert.id, "it was a drill", status="closed", verdict="test")
    (control,) = all_of(state, Control)
    assert (control.kind, control.actor, control.spooled_at) == ("verdict", "ana", None)
    assert control.payload == {
        "alert_id": alert.id,
        "rule_id": "exfiltration",
        "tenant": "default",
        "agent_id": "invoice-agent",
        "session_id": "s1",
        "verdict": "test",
    }


def test_only_verdicts_go_to_the_spool(state: State, alert: Alert, change: Change) -> None:
    change(alert.id, status="acknowledged", owner="ana")
    assert all_of(state, Control) == []


def test_a_verdict_given_before_serves_for_closing_and_is_told_once(
    state: State, alert: Alert, change: Change
) -> None:
    change(alert.id, "sure", verdict="true_positive")
    change(alert.id, status="closed")
    assert the_alert(state).status == "closed"
    assert len(all_of(state, Control)) == 1


def test_a_wrong_verdict_can_be_corrected_after_closing(state: State, alert: Alert, change: Change) -> None:
    change(alert.id, "looks fine", status="closed", verdict="false_positive")
    change(alert.id, "it was not fine", verdict="true_positive")
    assert [row.payload["verdict"] for row in all_of(state, Control)] == ["false_positive", "true_positive"]


def test_an_owner_can_let_go(state: State, alert: Alert, change: Change) -> None:
    change(alert.id, owner="ana")
    change(alert.id, owner="")
    assert the_alert(state).owner is None


@pytest.mark.parametrize("before", STATUSES)
@pytest.mark.parametrize("after", STATUSES)
def test_only_the_stated_transitions_are_possible(
    state: State, alert: Alert, change: Change, before: str, after: str
) -> None:
    change(alert.id, "given early", verdict="test")
    if before == "suppressed":  # by a silence alone
        with state.write() as session:
            session.get_one(Alert, alert.id).status = before
    elif before != "new":
        change(alert.id, status=before)
    if after in TRANSITIONS[before]:
        change(alert.id, status=after)
        assert the_alert(state).status == after
    else:
        with pytest.raises(AlertError, match=f"is {before}"):
            change(alert.id, status=after)
        assert the_alert(state).status == before


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"status": "closed"}, "needs a verdict"),
        ({"status": "closed", "verdict": "test", "reason": "  "}, "needs a reason"),
        ({"verdict": "false_positive"}, "needs a reason"),
        ({"verdict": "fine", "reason": "x"}, "'fine' is no verdict"),
        ({"status": "done"}, "'done' is no status"),
        ({"status": "acknowledged", "reason": "x" * 2001}, "at most 2000"),
        ({"owner": "x" * 201}, "1 to 200"),
        ({"status": "acknowledged", "actor": ""}, "1 to 200"),
        ({}, "nothing to change"),
        ({"owner": ""}, "nothing to change"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_and_leaves_no_trace(
    state: State, alert: Alert, change: Change, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(AlertError, match=says):
        change(alert.id, **fields)
    assert the_alert(state).version == 1
    assert all_of(state, AlertChange) == []
    assert all_of(state, Control) == []


def test_who_looked_at_an_older_version_is_told(alert: Alert, change: Change) -> None:
    change(alert.id, owner="ben", actor="ben", expected_version=1)
    with pytest.raises(StaleAlertError, match="at version 2 now, not 1"):
        change(alert.id, owner="ana", expected_version=1)
    assert change(alert.id, owner="ana", expected_version=2).version == 3


def test_an_unknown_alert_is_said_to_be_unknown(change: Change) -> None:
    with pytest.raises(NoSuchAlertError, match="no alert 'a_none'"):
        change("a_none", status="acknowledged")


def test_every_verdict_says_what_it_means() -> None:
    assert list(VERDICTS) == ["true_positive", "benign_positive", "false_positive", "duplicate", "test"]
    assert all(VERDICTS.values())
    assert set(TRANSITIONS) == set(STATUSES)


def test_hostile_names_are_kept_as_they_are(state: State, file: File) -> None:
    name = "x'; DROP TABLE alerts; --\x00<!channel>"
    file(finding(agent_id=name, session_id=name))
    assert the_alert(state).agent_id == name
