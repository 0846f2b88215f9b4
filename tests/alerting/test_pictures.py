"""Pictures below alerts: after the message, never in its way, and visible where they are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from monitor.alerting.alerts import AlertDesk
from monitor.alerting.deliveries import PICTURE_DELAY, PICTURES
from monitor.alerting.outbox import LEASE_SECONDS, Outbox
from monitor.alerting.own import own_finding
from monitor.alerting.pictures import SECONDS, SlackPictures, drawn_from
from monitor.alerting.slack import TIMEOUT_SECONDS, DeliveryError
from monitor.dashboards.activity import MOST_SECONDS, activity_chart
from monitor.dashboards.png import SIGNATURE, draw
from monitor.settings import Settings
from monitor.store.clickhouse import LateStore
from monitor.store.queries import Readers
from monitor.store.state import Alert, Delivery, State, now
from tests.alerting.conftest import RULES, finding
from tests.alerting.slack_api import TOKEN, Fault, SlackApi
from tests.alerting.test_slack import send_all

HOSTILE = '<!channel> \u202egpj.exe\x1b[31m","url":"http://evil.example'
PNG = SIGNATURE + b"picture"


@pytest.fixture
def settings(tmp_path: Path, slack: SlackApi) -> Settings:
    return Settings(data=tmp_path, slack={"token": TOKEN, "base_url": slack.url})


@pytest.fixture
def messages(state: State, settings: Settings) -> Outbox:
    return Outbox.of_messages(state, settings, "http://127.0.0.1:8600")


@pytest.fixture
def drawing() -> list[bytes | DeliveryError | None]:
    """What the next drawings give; a picture where nothing is left."""
    return []


@pytest.fixture
def pictures(state: State, settings: Settings, drawing: list[Any]) -> Outbox:
    def drawn(_alert: Alert) -> bytes | None:
        given = drawing.pop(0) if drawing else PNG
        if isinstance(given, DeliveryError):
            raise given
        return given  # type: ignore[no-any-return]

    return Outbox(state, {PICTURES: SlackPictures(state, settings.slack, drawn)})


@pytest.fixture
def alert(state: State, settings: Settings) -> Alert:
    with state.write() as session:
        (made,) = AlertDesk(state, RULES, settings).file(session, [finding()])
    return made


def picture(state: State) -> Delivery:
    with state.read() as session:
        return session.scalars(select(Delivery).where(Delivery.channel == PICTURES)).one()


def later(seconds: float = 0) -> int:
    return now() + PICTURE_DELAY + int(seconds * 1_000_000)


@pytest.mark.usefixtures("alert")
def test_the_picture_comes_into_the_thread_of_the_message(
    state: State, slack: SlackApi, messages: Outbox, pictures: Outbox
) -> None:
    send_all(messages)
    assert not pictures.step(now()), "the events are not stored yet"
    send_all(pictures, later())
    (message,), (shown,) = slack.messages, slack.pictures
    assert (shown.thread_ts, shown.content) == (message, PNG)
    assert shown.title == "Activity of invoice-agent in the hour before"
    assert shown.name.endswith(".png")
    assert picture(state).state == "sent"


@pytest.mark.usefixtures("alert")
def test_a_picture_waits_for_its_message_and_no_message_waits_for_a_picture(
    state: State, slack: SlackApi, messages: Outbox, pictures: Outbox, drawing: list[Any]
) -> None:
    assert pictures.step(later())
    assert "not posted yet" in str(picture(state).last_error)
    drawing.append(DeliveryError("no picture: the event store does not answer"))
    send_all(messages)
    assert pictures.step(later(10))
    with state.write() as session:
        changed = session.scalars(select(Alert)).one()
        AlertDesk(state, RULES, Settings(data=state.file.parent)).change(
            session, changed.id, "ana", status="acknowledged", reason=""
        )
    send_all(messages)
    assert len(slack.replies) == 1, "while its picture still waits"
    assert pictures.step(later(60))
    assert len(slack.pictures) == 1


@pytest.mark.usefixtures("alert")
def test_a_rate_limit_of_pictures_holds_up_no_message(
    state: State, settings: Settings, slack: SlackApi, messages: Outbox, pictures: Outbox
) -> None:
    send_all(messages)
    slack.faults = [Fault(429, b'{"ok": false, "error": "ratelimited"}', {"Retry-After": "600"})]
    assert pictures.step(later())
    with state.write() as session:
        AlertDesk(state, RULES, settings).file(session, [finding("f2", session_id="s2")])
    assert not pictures.step(later(300))
    send_all(messages)
    assert len(slack.heads) == 2


@pytest.mark.usefixtures("alert")
def test_a_missing_scope_leaves_the_picture_out_and_says_what_to_do(
    state: State, slack: SlackApi, messages: Outbox, pictures: Outbox
) -> None:
    send_all(messages)
    slack.may_upload = False
    send_all(pictures, later())
    left = picture(state)
    assert left.state == "failed"
    assert "missing_scope" in str(left.last_error)
    assert "files:write" in str(left.last_error)
    assert len(slack.heads) == 1


@pytest.mark.usefixtures("alert")
def test_nothing_to_draw_is_no_failure(
    state: State, slack: SlackApi, messages: Outbox, pictures: Outbox, drawing: list[Any]
) -> None:
    drawing.append(None)
    send_all(messages)
    send_all(pictures, later())
    assert picture(state).state == "sent"
    assert slack.pictures == []


def test_pictures_are_asked_for_once_and_not_of_watchkeeper_itself(state: State, settings: Settings) -> None:
    desk = AlertDesk(state, RULES, settings)
    with state.write() as session:
        desk.file(session, [finding(), own_finding("disk", "Disk full", "no room", "high")])
        desk.file(session, [finding("f2", level="critical")])
    assert picture(state).kind == "picture"


def test_an_event_store_that_is_not_open_is_told_of_and_tried_again(
    state: State, settings: Settings, messages: Outbox, alert: Alert
) -> None:
    send_all(messages)
    readers = Readers(LateStore(settings))
    outbox = Outbox(state, {PICTURES: SlackPictures(state, settings.slack, drawn_from(readers))})
    assert outbox.step(later())
    assert picture(state).state == "waiting"
    assert str(picture(state).last_error).startswith("no picture: ")
    readers.close()


def test_drawing_and_posting_end_before_the_lease_does() -> None:
    assert MOST_SECONDS + SECONDS + 3 * TIMEOUT_SECONDS < LEASE_SECONDS


def test_the_picture_shows_the_hour_and_nothing_of_it_is_interpreted(alert: Alert) -> None:
    alert.agent_id, alert.title, alert.last_event_at = HOSTILE, HOSTILE, 1_800_000_000_000_000
    rows = [(1_800_000_000_000 - 60_000 * back, "tool.executed", 3) for back in range(20)]
    spec = activity_chart(alert, rows)
    assert "\u202e" not in str(spec)
    png = draw(spec)
    assert png.startswith(SIGNATURE)
    assert 10_000 < len(png) < 400_000
