from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from monitor.alerting.alerts import AlertDesk
from monitor.alerting.outbox import LEASE_SECONDS, MAX_ATTEMPTS, MAX_DELAY_SECONDS, SECOND, Outbox, delay
from monitor.alerting.slack_text import HEADER, REASON, head, reply, shown
from monitor.settings import Settings
from monitor.store.state import Alert, Delivery, SlackThread, State, now
from tests.alerting.conftest import RULES, finding
from tests.alerting.slack_api import TOKEN, Fault, SlackApi

File = Callable[..., list[Alert]]
Change = Callable[..., Alert]


@pytest.fixture
def outbox(state: State, settings: Settings) -> Outbox:
    return Outbox.of_messages(state, settings, "http://127.0.0.1:8600")


def deliveries(state: State) -> list[Delivery]:
    with state.read() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.created_at)))


def until(ready: Callable[[], object], seconds: float = 10.0) -> None:
    """Polls until something holds."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.01)


def send_all(outbox: Outbox, at: int | None = None) -> None:
    while outbox.step(at or now()):
        pass


def due(delivery: Delivery) -> int:
    return delivery.next_attempt_at


def test_an_alert_is_posted_with_what_a_reader_needs(
    state: State, slack: SlackApi, outbox: Outbox, file: File
) -> None:
    (alert,) = file(finding())
    send_all(outbox)
    (message,) = slack.heads
    written = json.dumps(message.blocks)
    assert message.text == "[HIGH] Data leaves the house: Agent sent 3 files to evil.example, expected 0."
    assert "Agent: invoice-agent" in written
    assert "Session: s1" in written
    assert f"<https://wk.example/alerts/{alert.id}|Open in Watchkeeper>" in written
    (delivery,) = deliveries(state)
    assert (delivery.state, delivery.attempts, delivery.last_error) == ("sent", 1, None)
    assert delivery.sent_at is not None


def test_a_change_edits_the_message_and_replies_in_its_thread(
    slack: SlackApi, outbox: Outbox, file: File, change: Change
) -> None:
    (alert,) = file(finding())
    send_all(outbox)
    change(alert.id, "on it", status="acknowledged", owner="ana")
    send_all(outbox)
    (message,), (answer,) = slack.heads, slack.replies
    assert message.edits == 1
    assert "Status: acknowledged" in json.dumps(message.blocks)
    assert "Owner: ana" in json.dumps(message.blocks)
    assert slack.messages[str(answer.thread_ts)] is message
    assert "on it" in answer.text


def test_changes_made_before_the_alert_is_posted_follow_it(
    slack: SlackApi, outbox: Outbox, file: File, change: Change
) -> None:
    (alert,) = file(finding())
    change(alert.id, status="acknowledged")
    change(alert.id, "drill", status="closed", verdict="test")
    slack.faults = [Fault(503)]
    start = now()
    send_all(outbox, start)
    assert slack.calls == ["chat.postMessage"], "no reply overtakes its head"
    send_all(outbox, start + 10 * SECOND)
    assert len(slack.heads) == 1
    assert ["acknowledged" in reply.text for reply in slack.replies] == [True, True]
    assert "closed" in slack.replies[1].text


def test_a_deleted_message_is_posted_again_when_its_alert_moves(
    slack: SlackApi, outbox: Outbox, file: File, change: Change
) -> None:
    (alert,) = file(finding())
    send_all(outbox)
    slack.delete(next(iter(slack.messages)))
    change(alert.id, status="acknowledged")
    send_all(outbox)
    assert (len(slack.heads), len(slack.replies)) == (1, 1)


def test_a_rate_limit_is_honoured_for_the_whole_channel(
    state: State, slack: SlackApi, outbox: Outbox, file: File
) -> None:
    file(finding("f1"), finding("f2", session_id="s2"))
    slack.faults = [Fault(429, b'{"ok": false, "error": "ratelimited"}', {"Retry-After": "120"})]
    start = now()
    send_all(outbox, start)
    assert len(slack.calls) == 1
    send_all(outbox, start + 119 * SECOND)
    assert len(slack.calls) == 1
    send_all(outbox, start + 121 * SECOND)
    assert len(slack.heads) == 2


def test_a_broken_slack_is_tried_again_later_and_the_failure_shows(
    state: State, slack: SlackApi, outbox: Outbox, file: File
) -> None:
    file(finding())
    slack.faults = [Fault(500), Fault(500, b"<html>oops</html>")]
    send_all(outbox)
    (delivery,) = deliveries(state)
    assert (delivery.state, delivery.attempts) == ("waiting", 1)
    assert delivery.last_error == "Slack answered 500: internal_error"
    send_all(outbox, due(delivery))
    (delivery,) = deliveries(state)
    assert (delivery.state, delivery.attempts) == ("waiting", 2)
    send_all(outbox, due(delivery))
    (delivery,) = deliveries(state)
    assert (delivery.state, delivery.attempts, delivery.last_error) == ("sent", 3, None)
    assert len(slack.heads) == 1


def test_a_message_whose_answer_was_lost_is_not_posted_twice(
    state: State, slack: SlackApi, outbox: Outbox, file: File, change: Change
) -> None:
    (alert,) = file(finding())
    slack.faults = [Fault(502, lost=True)]
    send_all(outbox)
    assert len(slack.heads) == 1, "Slack has it, and said otherwise"
    send_all(outbox, now() + 10 * SECOND)
    change(alert.id, status="acknowledged")
    slack.faults = [Fault(502, lost=True)]
    send_all(outbox, now() + 10 * SECOND)
    send_all(outbox, now() + 20 * SECOND)
    assert (len(slack.heads), len(slack.replies)) == (1, 1)
    assert {delivery.state for delivery in deliveries(state)} == {"sent"}


def test_a_message_claimed_by_a_killed_process_is_sent_after_its_lease(
    state: State, settings: Settings, slack: SlackApi, outbox: Outbox, file: File
) -> None:
    file(finding())
    start = now()
    assert outbox._claim(start) is not None
    successor = Outbox.of_messages(state, settings, "http://127.0.0.1:8600")
    assert not successor.step(start + (LEASE_SECONDS - 1) * SECOND)
    assert successor.step(start + LEASE_SECONDS * SECOND)
    assert len(slack.heads) == 1


def test_a_message_posted_but_not_marked_is_not_posted_again(
    state: State, slack: SlackApi, outbox: Outbox, file: File
) -> None:
    file(finding())
    start = now()
    claimed = outbox._claim(start)
    assert claimed is not None
    outbox.channels["slack"].send(claimed)
    send_all(outbox, start + LEASE_SECONDS * SECOND)
    assert slack.calls == ["chat.postMessage"]
    (delivery,) = deliveries(state)
    assert (delivery.state, delivery.attempts) == ("sent", 2)


def test_after_many_attempts_a_message_is_given_up_visibly(
    state: State, slack: SlackApi, outbox: Outbox, file: File
) -> None:
    file(finding())
    slack.faults = [Fault(500)] * MAX_ATTEMPTS
    for _ in range(MAX_ATTEMPTS):
        (delivery,) = deliveries(state)
        assert delivery.state == "waiting"
        assert outbox.step(due(delivery))
    (delivery,) = deliveries(state)
    assert (delivery.state, delivery.attempts) == ("failed", MAX_ATTEMPTS)
    assert delivery.last_error == "Slack answered 500: internal_error"
    assert not outbox.step(due(delivery) + 10**12)


def test_an_update_whose_head_was_given_up_brings_the_head_along(
    state: State, slack: SlackApi, outbox: Outbox, file: File, change: Change
) -> None:
    (alert,) = file(finding())
    with state.write() as session:
        session.get_one(Delivery, deliveries(state)[0].id).state = "failed"
    change(alert.id, status="acknowledged")
    send_all(outbox)
    assert (len(slack.heads), len(slack.replies)) == (1, 1)


def test_a_message_that_slack_finds_malformed_is_not_repeated(
    state: State, slack: SlackApi, outbox: Outbox, file: File
) -> None:
    file(finding())
    slack.faults = [Fault(200, b'{"ok": false, "error": "invalid_blocks"}')]
    send_all(outbox)
    (delivery,) = deliveries(state)
    assert (delivery.state, delivery.last_error) == ("failed", "Slack answered 200: invalid_blocks")


@pytest.mark.parametrize(
    ("change_of", "says"),
    [
        ({"token": "xoxb-wrong"}, "invalid_auth"),
        ({"channel": "#gone"}, "channel_not_found"),
        ({"base_url": "http://127.0.0.1:1/api/"}, "cannot be reached"),
    ],
)
def test_what_people_can_repair_is_tried_again(
    state: State, settings: Settings, file: File, change_of: dict[str, str], says: str
) -> None:
    file(finding())
    slack = {"token": TOKEN, "base_url": settings.slack.base_url, **change_of}
    send_all(Outbox.of_messages(state, Settings(data=settings.data, slack=slack), "http://127.0.0.1:8600"))
    (delivery,) = deliveries(state)
    assert delivery.state == "waiting"
    assert says in str(delivery.last_error)
    send_all(Outbox.of_messages(state, settings, "http://127.0.0.1:8600"), due(delivery))
    assert deliveries(state)[0].state == "sent"


def test_the_token_is_in_no_log_and_in_no_error(
    state: State,
    slack: SlackApi,
    outbox: Outbox,
    file: File,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    file(finding(), finding("f2", session_id="s2"), finding("f3", session_id="s3"))
    slack.faults = [
        Fault(500, b"not json"),
        Fault(200, b'{"ok": false, "error": "invalid_blocks"}'),
    ]
    send_all(outbox)
    assert len(slack.calls) == 3
    output = capsys.readouterr()
    errors = " ".join(str(delivery.last_error) for delivery in deliveries(state))
    assert TOKEN not in caplog.text + output.out + output.err + errors


def test_delays_grow_to_a_limit_and_are_the_same_every_time() -> None:
    delays = [delay("d_1", attempt) for attempt in range(1, MAX_ATTEMPTS)]
    assert delays == [delay("d_1", attempt) for attempt in range(1, MAX_ATTEMPTS)]
    assert all(0.5 * 2**n <= seconds <= 2**n for n, seconds in enumerate(delays[:8]))
    assert all(MAX_DELAY_SECONDS / 2 <= seconds <= MAX_DELAY_SECONDS for seconds in delays[9:])
    assert delay("d_1", 5) != delay("d_2", 5)


def test_the_worker_sends_when_woken_and_ends_when_told(
    state: State, slack: SlackApi, outbox: Outbox, desk: AlertDesk, file: File
) -> None:
    desk.on_wake(outbox.wake)
    outbox.start()
    file(finding())
    desk.wake()
    until(lambda: slack.heads)
    until(lambda: deliveries(state)[0].state == "sent")
    outbox.stop()
    assert not outbox._thread.is_alive()


def test_the_worker_finds_what_another_process_enqueued(
    state: State, settings: Settings, slack: SlackApi, outbox: Outbox
) -> None:
    outbox.start()
    other = AlertDesk(state, RULES, settings)
    with state.write() as session:
        other.file(session, [finding()])
    until(lambda: slack.heads)
    outbox.stop()


def test_the_worker_outlives_a_state_database_that_fails(
    state: State, slack: SlackApi, outbox: Outbox, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, failures = outbox._claim, [OSError("disk"), OSError("disk")]

    def flaky(at: int) -> Delivery | None:
        if failures:
            raise failures.pop()
        return claim(at)

    monkeypatch.setattr(outbox, "_claim", flaky)
    file(finding())
    outbox.start()
    until(lambda: slack.heads)
    outbox.stop()


def test_without_slack_the_outbox_leaves_messages_waiting(
    state: State, file: File, settings: Settings
) -> None:
    file(finding())
    outbox = Outbox.of_messages(state, Settings(data=settings.data), "http://127.0.0.1:8600")
    send_all(outbox)
    assert deliveries(state)[0].state == "waiting"


def test_filing_does_not_wait_for_a_slow_slack(
    state: State, slack: SlackApi, outbox: Outbox, desk: AlertDesk, file: File
) -> None:
    desk.on_wake(outbox.wake)
    outbox.start()
    with slack._lock:
        file(finding("f1"))
        desk.wake()
        until(lambda: deliveries(state)[0].attempts == 1)
        file(*(finding(f"f{n}", session_id=f"s{n}") for n in range(2, 20)))
        assert slack.heads == []
    until(lambda: len(slack.heads) == 19)
    outbox.stop()


HOSTILE = "<!channel> <@U1> <http://evil.example|click> &amp; *bold* `code`\n\u202egnp.exe\x1b[31m\u200b"


def test_nothing_that_an_agent_writes_is_interpreted(
    slack: SlackApi, outbox: Outbox, file: File, change: Change
) -> None:
    (alert,) = file(
        finding(title=HOSTILE, reason=HOSTILE * 200, agent_id=HOSTILE, session_id=HOSTILE, rule_id=HOSTILE)
    )
    send_all(outbox)
    change(alert.id, HOSTILE, owner=HOSTILE, status="acknowledged")
    send_all(outbox)
    assert (len(slack.heads), len(slack.replies)) == (1, 1)
    for message in slack.messages.values():
        link = f"<https://wk.example/alerts/{alert.id}|Open in Watchkeeper>"
        written = [message.text, *texts(message.blocks)]
        agents = [text for text in written if text != link]
        assert len(written) - len(agents) == (message.thread_ts is None)
        assert not any(set(text) & set("<>\n\u202e\x1b\u200b") for text in agents)
        assert any("&lt;!channel&gt;" in text for text in agents)


def texts(blocks: list[dict[str, Any]]) -> list[str]:
    """Every text in the blocks. Those of agents must be plain_text; the link alone is not."""
    found = []
    for block in blocks:
        for part in (block.get("text"), *block.get("fields", []), *block.get("elements", [])):
            if part is not None:
                assert part["type"] == "plain_text" or part["verbatim"]
                found.append(part["text"])
    return found


@pytest.mark.parametrize("limit", [1, 2, 10, 150])
@pytest.mark.parametrize("text", ["<" * 1000, "a" * 1000, "&lt;" * 1000, "short", ""])
def test_a_text_is_cut_after_escaping_and_never_within_an_escape(text: str, limit: int) -> None:
    cut = shown(text, limit)
    assert len(cut) <= limit
    whole = cut.removesuffix("…").replace("&lt;", "").replace("&gt;", "").replace("&amp;", "")
    assert "&" not in whole


def test_a_message_keeps_to_slacks_limits(file: File) -> None:
    long = "<" * 10_000
    (alert,) = file(finding(title=long, reason=long, agent_id=long, session_id=long, environment=long))
    message = head(alert, "https://wk.example")
    assert len(message["blocks"][0]["text"]["text"]) <= HEADER
    assert len(message["blocks"][1]["text"]["text"]) <= REASON
    assert len(reply(long)["text"]) < 3_000


def test_threads_are_remembered_by_channel_and_time(
    state: State, slack: SlackApi, outbox: Outbox, file: File, tmp_path: Path
) -> None:
    (alert,) = file(finding())
    send_all(outbox)
    with state.read() as session:
        thread = session.get_one(SlackThread, alert.id)
    assert thread.channel == "C0ALERTS"
    assert thread.ts in slack.messages
