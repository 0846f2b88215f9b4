"""The watch over the product itself, from made-up heartbeats and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from monitor.alerting.alerts import AlertDesk
from monitor.alerting.kinds import KINDS
from monitor.alerting.recovery import failing, note_failing, note_recovered
from monitor.alerting.selfwatch import SelfWatch, Told
from monitor.alerting.signs import SECOND, Sign
from monitor.settings import Settings
from monitor.store.state import Alert, AlertChange, AlertFinding, Delivery, State

BEGAN = 1_800_000_000 * SECOND


class House:
    """A daemon that only says how it is: its processes' heartbeats, second by second."""

    def __init__(self, settings: Settings, began: int = BEGAN, predecessor: Sign | None = None) -> None:
        self.at = began
        self.watch = SelfWatch(settings, began, predecessor)
        self.pids = {"edge": 11, "detection": 12, "console": 13}
        self.started = dict.fromkeys(self.pids, began)
        self.metrics: dict[str, dict[str, float]] = {name: {} for name in self.pids}
        self.detail: dict[str, dict[str, Any]] = {name: {} for name in self.pids}
        self.last = dict.fromkeys(self.pids, began)
        self.dead: set[str] = set()
        self.stuck: set[str] = set()
        self.revoked: frozenset[str] = frozenset()

    def pass_seconds(self, seconds: int = 1) -> list[Told]:
        """Let time go by; what each look had to tell."""
        told = []
        for _ in range(seconds):
            self.at += SECOND
            for name in self.pids.keys() - self.dead:
                self.last[name] = self.at
                if name not in self.stuck:
                    self.metrics[name]["ticked_at"] = float(self.at)
            told.append(self.watch.look(self.signs(), self.at, self.revoked))
        return told

    def signs(self) -> dict[str, Sign]:
        return {
            name: Sign(
                name, pid, self.started[name], self.last[name], self.metrics[name], dict(self.detail[name])
            )
            for name, pid in self.pids.items()
        }

    def restart(self, name: str) -> None:
        self.pids[name] += 100
        self.started[name] = self.at

    def sender(self, **figures: Any) -> dict[str, Any]:
        """The figures of one key, sent in the edge's heartbeat from now on."""
        one = {
            "key": "key_1",
            "name": "gateway",
            "tenant": "default",
            "agent": None,
            "first_at": self.at - 3600 * SECOND,
            "last_at": self.at,
            "requests": 1000,
            "records": 0,
            "rejected": 0,
            "unmapped": 0,
            "ended": False,
            "usual_seconds": 2.0,
            "skew_seconds": -0.1,
            "skewed_requests": 31,
            "reason": None,
        } | figures
        self.detail["edge"].setdefault("callers", []).append(one)
        return one


def kinds(told: list[Told]) -> list[str]:
    return [finding.rule_id.removeprefix("watchkeeper.") for look in told for finding in look.findings]


def ended(told: list[Told]) -> list[str]:
    return [one.finding.rule_id.removeprefix("watchkeeper.") for look in told for one in look.recovered]


def only(told: list[Told]) -> Any:
    (finding,) = [finding for look in told for finding in look.findings]
    return finding


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(Settings(data=tmp_path))


def test_a_healthy_house_says_nothing(house: House) -> None:
    house.sender()
    assert kinds(house.pass_seconds(120)) == []


def test_a_silent_process_is_told_once_and_its_return_too(house: House) -> None:
    house.pass_seconds(5)
    house.dead = {"console"}
    told = house.pass_seconds(60)
    finding = only(told)
    assert (finding.rule_id, finding.level) == ("watchkeeper.process-silent", "high")
    assert "console" in finding.reason
    house.dead = set()
    told = house.pass_seconds(30)
    assert ended(told) == ["process-silent"]


def test_a_silent_edge_is_critical(house: House) -> None:
    house.pass_seconds(5)
    house.dead = {"edge"}
    assert only(house.pass_seconds(12)).level == "critical"


def test_a_process_that_never_begins_is_told_after_its_time_to_begin(house: House) -> None:
    house.last["edge"] = BEGAN - 86_400 * SECOND  # what an earlier daemon left behind
    house.dead = {"edge"}
    assert kinds(house.pass_seconds(38)) == []
    assert kinds(house.pass_seconds(5)) == ["process-silent"]


def test_a_machine_that_slept_finds_nobody_silent(house: House) -> None:
    house.pass_seconds(5)
    house.at += 3600 * SECOND
    assert kinds([house.watch.look(house.signs(), house.at)]) == []
    assert kinds(house.pass_seconds(20)) == []


def test_a_process_that_was_started_again_is_told_once(house: House) -> None:
    house.pass_seconds(5)
    house.restart("console")
    told = house.pass_seconds(30)
    assert kinds(told) == ["process-restarted"]
    assert ended(told) == []


def test_a_whole_daemon_that_begins_anew_is_no_process_that_ended_unasked(tmp_path: Path) -> None:
    former = Sign("detection", 5, BEGAN - 9 * SECOND, BEGAN - 3 * SECOND)
    assert kinds(House(Settings(data=tmp_path), predecessor=former).pass_seconds(20)) == []


def test_a_detection_that_died_beside_a_living_edge_is_told_by_the_next_one(tmp_path: Path) -> None:
    former = Sign("detection", 5, BEGAN - 9 * SECOND, BEGAN - 3 * SECOND)
    house = House(Settings(data=tmp_path), predecessor=former)
    house.started["edge"] = BEGAN - 9 * SECOND
    finding = only(house.pass_seconds(20))
    assert (finding.rule_id, finding.evidence["former_pid"]) == ("watchkeeper.process-restarted", 5)


def test_judging_that_hangs_is_a_lag_though_the_process_lives(house: House) -> None:
    house.pass_seconds(5)
    house.stuck = {"detection"}
    finding = only(house.pass_seconds(40))
    assert finding.rule_id == "watchkeeper.detection-lag"
    assert finding.evidence["lag_seconds"] > 30
    house.stuck = set()
    assert ended(house.pass_seconds(20)) == ["detection-lag"]


def test_a_backlog_from_before_the_start_is_no_lag_at_once(house: House) -> None:
    house.stuck = {"detection"}
    house.metrics["detection"]["ticked_at"] = float(BEGAN - 3600 * SECOND)
    assert kinds(house.pass_seconds(25)) == []


def test_segments_that_wait_for_the_store_are_a_lag(house: House) -> None:
    house.pass_seconds(5)
    house.metrics["console"]["unstored_since_at"] = float(house.at)
    assert kinds(house.pass_seconds(119)) == []
    assert kinds(house.pass_seconds(10)) == ["storing-lag"]


def test_a_store_that_fails_is_told_with_its_own_words_on_one_line(house: House) -> None:
    house.pass_seconds(5)
    house.detail["console"]["fault"] = "storing fails: refused\r\n\x1b[31mby \u202eserver"
    finding = only(house.pass_seconds(3))
    assert finding.rule_id == "watchkeeper.storing-failed"
    assert finding.reason.isprintable()


def test_a_spool_that_fills_grows_worse_when_it_is_full(house: House) -> None:
    limit = Settings().spool.max_bytes
    house.pass_seconds(5)
    house.metrics["edge"]["spool_bytes"] = 0.85 * limit
    assert only(house.pass_seconds(5)).level == "high"
    house.metrics["edge"]["spool_bytes"] = 1.01 * limit
    house.detail["edge"]["pressure"] = {"spool_full": True, "refused_full_total": 7}
    finding = only(house.pass_seconds(5))
    assert (finding.level, finding.evidence["refused_requests"]) == ("critical", 7)


def test_dead_letters_that_made_room_for_newer_ones_are_told_and_lost_ones_are_worse(house: House) -> None:
    house.pass_seconds(5)
    house.metrics["edge"]["edge_dead_letters_evicted_total"] = 1_200
    finding = only(house.pass_seconds(5))
    assert (finding.rule_id, finding.level) == ("watchkeeper.dead-letters-lost", "medium")
    assert "1,200 dead letters" in finding.reason
    house.metrics["edge"]["edge_dead_letters_lost_total"] = 3
    worse = only(house.pass_seconds(5))
    assert (worse.level, worse.evidence["lost"], worse.evidence["evicted"]) == ("high", 3, 1_200)


def test_a_fault_is_not_over_because_its_teller_has_died(house: House) -> None:
    house.pass_seconds(5)
    house.detail["edge"]["pressure"] = {"disk_fault": "No space left on device"}
    assert kinds(house.pass_seconds(5)) == ["disk-fault"]
    house.dead = {"edge"}
    told = house.pass_seconds(60)
    assert (kinds(told), ended(told)) == (["process-silent"], [])


def test_bytes_cut_off_at_the_start_are_told_once(house: House) -> None:
    house.detail["edge"]["cut_bytes"] = 812
    told = house.pass_seconds(100)
    assert "812 bytes" in only(told).reason
    assert ended(told) == []


def test_throttling_is_told_for_the_key_that_meets_it(house: House) -> None:
    house.sender()
    house.pass_seconds(90)
    house.detail["edge"]["pressure"] = {"by_key": {"key_1": {"throttled_total": 9}}}
    assert kinds(house.pass_seconds(2)) == []
    house.detail["edge"]["pressure"] = {"by_key": {"key_1": {"throttled_total": 40}}}
    finding = only(house.pass_seconds(2))
    assert finding.evidence == {"about": "key_1", "requests": 40, "limit_requests": 10} | {
        "condition": "failing",
        "since": house.at - SECOND,
    }
    assert "gateway" in finding.reason
    assert ended(house.pass_seconds(90)) == ["throttled"]


def test_what_was_refused_before_the_watch_began_is_not_told_again(tmp_path: Path) -> None:
    house = House(Settings(data=tmp_path))
    house.started["edge"] = BEGAN - 7200 * SECOND
    one = house.sender(records=5000, rejected=400)
    assert kinds(house.pass_seconds(10)) == []
    one["rejected"] += 1
    one["records"] += 1
    assert kinds(house.pass_seconds(2)) == ["rejected"]


def test_one_refused_record_is_a_low_alert_and_many_are_a_medium_one(house: House) -> None:
    one = house.sender(records=1, rejected=1, reason="timestamp: missing")
    finding = only(house.pass_seconds(2))
    assert (finding.level, finding.evidence["reason"]) == ("low", "timestamp: missing")
    assert "dead-letters" in finding.reason
    one |= {"records": 300, "rejected": 40}
    worse = only(house.pass_seconds(2))
    assert (worse.level, worse.evidence["share"]) == ("medium", round(40 / 300, 4))


def test_telemetry_that_no_map_recognises_is_told(house: House) -> None:
    house.sender(records=100, unmapped=30)
    assert only(house.pass_seconds(2)).evidence["share"] == 0.3


def test_a_regular_sender_that_stops_is_told_and_its_return_too(house: House) -> None:
    one = house.sender()
    house.pass_seconds(599)
    finding = only(house.pass_seconds(10))
    assert finding.rule_id == "watchkeeper.silent-source"
    assert finding.evidence["limit_seconds"] == 600
    one["last_at"] = house.at
    assert ended(house.pass_seconds(20)) == ["silent-source"]


@pytest.mark.parametrize(
    "figures",
    [
        {"requests": 9},
        {"first_at": BEGAN - 300 * SECOND},
        {"ended": True},
        {"usual_seconds": 2048.0},
        {"key": "key_gone"},
    ],
    ids=["too few", "too short", "it said so", "it often pauses", "its key was revoked"],
)
def test_silence_of_others_is_not_told(house: House, figures: dict[str, Any]) -> None:
    house.revoked = frozenset({"key_gone"})
    house.sender(**figures)
    assert kinds(house.pass_seconds(900)) == []


def test_nobody_is_silent_who_could_not_be_heard(house: House) -> None:
    house.sender()
    house.detail["edge"]["pressure"] = {"spool_full": True}
    assert kinds(house.pass_seconds(700)) == ["spool-full"]
    house.detail["edge"]["pressure"] = {}
    assert kinds(house.pass_seconds(300)) == []


def test_a_clock_ahead_is_told_sooner_than_one_behind(house: House) -> None:
    house.sender(key="a", skew_seconds=301.0)
    house.sender(key="b", skew_seconds=-301.0)
    house.sender(key="c", skew_seconds=-7200.0)
    house.sender(key="d", skew_seconds=9000.0, skewed_requests=2)
    told = [finding for look in house.pass_seconds(3) for finding in look.findings]
    assert [(one.evidence["about"], one.level) for one in told] == [("a", "medium"), ("c", "low")]


def test_many_senders_that_fall_silent_at_once_are_a_handful_of_alerts(house: House) -> None:
    ones = [house.sender(key=f"key_{number}") for number in range(300)]
    told = house.pass_seconds(700)
    abouts = [finding.evidence["about"] for look in told for finding in look.findings]
    assert len(abouts) == 6
    assert abouts.count("several") == 1
    for one in ones:
        one["last_at"] = house.at
    assert len(ended(house.pass_seconds(20))) == 6


def test_a_lasting_fault_is_filed_again_from_time_to_time_and_no_more(house: House) -> None:
    house.pass_seconds(5)
    house.detail["console"]["fault"] = "storing fails"
    assert len(kinds(house.pass_seconds(3000))) == 4  # at once, and every 900 s


def test_a_fault_that_flaps_says_so_ever_less_often(house: House) -> None:
    house.pass_seconds(5)
    told: list[Told] = []
    for _ in range(20):
        house.detail["console"]["fault"] = "storing fails"
        told += house.pass_seconds(2)
        house.detail["console"]["fault"] = None
        told += house.pass_seconds(98)
    assert len(ended(told)) == 3  # it had to stay away for 15, then 30, then 60 s, and now for 120


# --- filed ----------------------------------------------------------------------------------


@pytest.fixture
def filed(house: House, state: State, desk: AlertDesk) -> Any:
    """Lets time go by in the house and files what is told."""

    def run(seconds: int) -> None:
        for told in house.pass_seconds(seconds):
            with state.write() as session:
                desk.file(session, told.findings)
                note_failing(session, told.findings, house.at)
                note_recovered(session, told.recovered, house.at)

    return run


def rows(state: State, table: Any) -> list[Any]:
    with state.read() as session:
        return list(session.scalars(select(table)))


def break_and_mend(house: House, filed: Any) -> Iterator[None]:
    while True:
        house.detail["console"]["fault"] = "storing fails"
        filed(5)
        yield
        house.detail["console"]["fault"] = None
        filed(40)
        yield


def test_a_fault_and_its_end_are_one_alert_with_a_history(house: House, state: State, filed: Any) -> None:
    steps = break_and_mend(house, filed)
    next(steps)
    (alert,) = rows(state, Alert)
    assert alert.evidence["condition"] == "failing"
    assert tuple(alert.runbook) == KINDS["storing-failed"].runbook
    next(steps)
    (alert,), (change,) = rows(state, Alert), rows(state, AlertChange)
    assert (alert.status, alert.verdict, alert.evidence["condition"]) == ("new", None, "recovered")
    assert (change.actor, change.old, change.new) == ("watchkeeper", "failing", "recovered")
    assert change.reason == "recovered by itself after 4 s"
    next(steps)
    (alert,) = rows(state, Alert)
    assert (alert.count, alert.evidence["condition"]) == (2, "failing")
    assert [one.new for one in rows(state, AlertChange)] == ["recovered", "failing"]


def test_a_new_detection_process_knows_what_was_failing(
    house: House, state: State, desk: AlertDesk, filed: Any, settings: Settings
) -> None:
    next(break_and_mend(house, filed))
    later = House(settings, house.at + 60 * SECOND)
    with state.read() as session:
        known = failing(session)
    later.watch.resume(known)
    assert list(known) == [("storing-failed", "")]
    told = later.pass_seconds(40)
    assert (kinds(told), ended(told)) == ([], ["storing-failed"])


def test_a_fault_that_comes_back_after_a_verdict_opens_an_alert_and_wakes_nobody_twice(
    house: House, state: State, desk: AlertDesk, filed: Any
) -> None:
    steps = break_and_mend(house, filed)
    for _ in range(3):
        next(steps)
        alert = next(one for one in rows(state, Alert) if one.status != "closed")
        with state.write() as session:
            desk.change(session, alert.id, "ana", status="closed", verdict="benign_positive", reason="known")
        next(steps)
    assert len(rows(state, Alert)) == 3
    assert [one.kind for one in rows(state, Delivery)].count("alert") == 1


def test_a_storm_of_own_faults_sends_a_bounded_number_of_messages(
    house: House, state: State, slack: Any, tmp_path: Path
) -> None:
    settings = Settings(
        data=tmp_path,
        slack={"token": "xoxb-x", "base_url": slack.url},
        own_alerts={"messages_per_hour": 4},
    )
    desk = AlertDesk(state, {}, settings)
    house.watch = SelfWatch(settings, house.at)
    for number in range(30):
        house.sender(key=f"key_{number}", skew_seconds=9_000.0)
    house.detail["console"]["fault"] = "storing fails"
    for told in house.pass_seconds(30):
        with state.write() as session:
            desk.file(session, told.findings)
    assert len(rows(state, Alert)) == 7
    assert len(rows(state, Delivery)) == 4
    assert len(rows(state, AlertFinding)) == 7


def test_every_kind_has_a_title_and_a_runbook_of_some_steps() -> None:
    for kind in KINDS.values():
        assert kind.title[0].isupper()
        assert 2 <= len(kind.runbook) <= 6
