"""The queue and the page of an alert, over real SQLite and real ClickHouse."""

from __future__ import annotations

import re

import pytest

from monitor.store.clickhouse import EventStore
from monitor.store.state import Alert
from monitor.web.headers import POLICY
from tests.web.conftest import Browser
from tests.web.seeding import HOSTILE, Stand, finding, seed


def shown(page: str) -> list[str]:
    """Titles in the queue, in order."""
    return re.findall(r'class="title"[^>]*><bdi>([^<]+)</bdi>', page)


def seeded(stand: Stand, store: EventStore, session_id: str) -> Alert:
    seed(stand, store)
    with stand.state.read() as session:
        return session.query(Alert).where(Alert.session_id == session_id, Alert.level != "medium").one()


@pytest.mark.parametrize(
    "path", ["/alerts", "/status", "/login", "/nothing", "/api/v1/alerts", "/static/console.css"]
)
def test_every_answer_forbids_foreign_content(browser: Browser, path: str) -> None:
    headers = browser.get(path).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert ("immutable" if path.startswith("/static") else "no-store") in headers["cache-control"]


def test_documentation_pages_of_the_framework_are_not_served(browser: Browser) -> None:
    assert browser.get("/docs").status_code == 404
    assert browser.get("/redoc").status_code == 404
    assert browser.get("/openapi.json").json()["info"]["title"] == "Watchkeeper"


def test_the_queue_shows_what_is_open_latest_first(stand: Stand, browser: Browser) -> None:
    stand.file(
        finding("old", title="Old", ago=600), finding("newer", title="Newer"), finding("done", title="Done")
    )
    with stand.state.write() as session:
        done = session.query(Alert).where(Alert.title == "Done").one()
        stand.desk.change(session, done.id, "ana", status="closed", verdict="test", reason="a try")
    assert shown(browser.get("/alerts").text) == ["Newer", "Old"]
    assert shown(browser.get("/alerts?status=closed").text) == ["Done"]
    assert len(shown(browser.get("/alerts?status=any").text)) == 3


def test_filters_narrow_the_queue_and_leave_their_own_counts_alone(stand: Stand, browser: Browser) -> None:
    stand.file(
        finding("a", title="A", level="high", agent_id="x"),
        finding("b", title="B", level="low", agent_id="x"),
        finding("c", title="C", level="low", agent_id="y"),
    )
    page = browser.get("/alerts?level=low").text
    assert sorted(shown(page)) == ["B", "C"]
    assert "level=low&amp;level=high" in page  # high can still be added
    assert shown(browser.get("/alerts?level=low&agent=y").text) == ["C"]
    assert shown(browser.get("/alerts?q=%25").text) == []
    assert shown(browser.get("/alerts?q=SESSION-c").text) == ["C"]
    assert shown(browser.get("/alerts?sort=severity").text)[0] == "A"


def test_a_bar_of_the_histogram_leads_to_its_alerts(stand: Stand, browser: Browser) -> None:
    stand.file(finding("now", title="Now"), *(finding(f"p{n}", title="Past", ago=86_400) for n in range(3)))
    bars = re.findall(r'<a href="([^"]+)"><title>', browser.get("/alerts").text)
    titles = [shown(browser.get(bar.replace("&amp;", "&")).text) for bar in bars]
    assert titles == [["Past"] * 3, ["Now"]]


@pytest.mark.parametrize(
    "query", ["from=x&to=-1", "page=0", "range=5y", "sort=;drop", "level=%00", "open=none", "agent="]
)
def test_a_query_string_that_means_nothing_is_harmless(browser: Browser, query: str) -> None:
    assert browser.get(f"/alerts?{query}").status_code == 200


def test_an_alert_explains_itself(stand: Stand, store: EventStore, browser: Browser) -> None:
    alert = seeded(stand, store, "inv-20931")
    page = browser.get(f"/alerts/{alert.id}").text
    assert "4.1 s later" in page  # why, with a number
    assert "<mark><bdi>tool.executed</bdi></mark>" in page
    assert "payments-over-10k" in page  # from the stored event
    assert page.count('<li class="own">') == 2  # the alert's own events in the session's timeline
    assert "−9.200" in page  # the session began before
    for step in ("ordered", "confirmed", "silent"):
        assert f"<b>{step}</b>" in page
    assert "+259 ms" in page
    assert "Stop the agent." in page  # the runbook
    assert "type: temporal_ordered" in page  # the rule's text


def test_what_was_observed_stands_beside_what_was_expected(
    stand: Stand, store: EventStore, browser: Browser
) -> None:
    alert = seeded(stand, store, "res-5591")
    page = browser.get(f"/alerts/{alert.id}/drawer").text
    assert re.search(r"bits of the worst step.*14\.2.*below 9\.4", page)
    assert "0.00043" in page


def test_events_that_are_not_stored_yet_are_said_to_be_missing(stand: Stand, browser: Browser) -> None:
    (alert,) = stand.file(finding("early"))
    page = browser.get(f"/alerts/{alert.id}").text
    assert "1 of 1 events is not in the event store yet" in page
    assert "No event of this session is in the event store yet" in page


def test_an_event_of_another_tenant_with_the_same_id_is_not_shown(
    stand: Stand, store: EventStore, browser: Browser
) -> None:
    seed(stand, store)
    (alert,) = stand.file(
        finding("other", tenant="rival", event_ids=("inv-20931-007",), session_id="inv-20931")
    )
    assert "payments-over-10k" not in browser.get(f"/alerts/{alert.id}").text


def test_an_alert_that_does_not_exist_is_a_page_not_a_crash(browser: Browser) -> None:
    answer = browser.get("/alerts/a_none")
    assert answer.status_code == 404
    assert "no such alert" in answer.text


def test_hostile_names_are_shown_and_do_nothing(stand: Stand, browser: Browser) -> None:
    hostile = {"agent_id": HOSTILE, "session_id": HOSTILE, "title": HOSTILE, "reason": HOSTILE * 300}
    (alert,) = stand.file(
        finding(
            "bad",
            **hostile,
            evidence={"matched": {HOSTILE: HOSTILE}, HOSTILE: [HOSTILE], "observed": HOSTILE},
        )
    )
    for path in ("/alerts", f"/alerts/{alert.id}", f"/alerts?open={alert.id}", f"/alerts?q={HOSTILE[:9]}"):
        page = browser.get(path).text
        assert "<img" not in page
        assert "\u202e" not in page
        assert "\x1b" not in page
        assert "49" not in re.findall(r"gpj\.exe.{0,60}", page)[0]
        assert len(page) < 60_000


def test_status_shows_processes_counters_profiles_and_failures(stand: Stand, browser: Browser) -> None:
    before = browser.get("/status").text
    assert before.count("not started") == 3
    seed(stand)
    page = browser.get("/status/body").text
    assert page.count("alive") == 3
    for text in ("184 220", "onboarding-agent", "HTTP 503 from Slack", "dead letters"):
        assert text in page


def test_the_queue_is_grouped_and_a_group_leads_to_its_alerts(stand: Stand, browser: Browser) -> None:
    stand.file(
        finding("1", agent_id="a", session_id="s1", level="low"),
        finding("2", agent_id="a", session_id="s2", level="critical"),
        finding("3", agent_id="b", session_id="s3", level="high", title="Other", rule_id="other"),
        finding("4", agent_id="c", session_id=None, group={"agent_id": "c"}, level="low"),
    )
    page = browser.get("/alerts?group=agent&q=").text
    rows = re.findall(r'<tr><th scope="row"><a href="/alerts\?([^"]*)">.*?<bdi>(\w+)</bdi>', page)
    assert [name for _, name in rows] == ["a", "b", "c"]
    assert shown(browser.get(f"/alerts?{rows[0][0]}").text) != []
    assert len(shown(browser.get(f"/alerts?{rows[0][0]}").text)) == 2
    by_session = browser.get("/alerts?group=session").text
    assert "no session" in by_session
    assert 'href="/sessions/s2"' in by_session
    by_rule = browser.get("/alerts?group=rule").text
    assert re.search(r"Unusual order of tools.*?Critical.*?>3<.*?>2<", by_rule, re.S)
    assert "group=" not in rows[0][0]
