"""The rules' record: what fired, and what people said of it."""

from __future__ import annotations

import pytest

from monitor.web.rules import DAY, DAYS, RuleLine, by_day, rule_lines
from tests.web.conftest import Browser
from tests.web.seeding import RULES, Stand, finding

VERDICTS = (
    "true_positive",
    "true_positive",
    "true_positive",
    "false_positive",
    "benign_positive",
    "duplicate",
    "test",
)


def judged(stand: Stand) -> None:
    for number, verdict in enumerate(VERDICTS):
        [alert] = stand.file(finding(f"f{number}", session_id=f"s{number}"))
        with stand.state.write() as session:
            stand.desk.change(session, alert.id, "ana", status="closed", verdict=verdict, reason="seen")


def test_precision_counts_what_was_judged_and_nothing_else(stand: Stand, browser: Browser) -> None:
    judged(stand)
    stand.file(finding("open", session_id="open"))
    with stand.state.read() as session:
        line = next(one for one in rule_lines(session, stand.desk.rules) if one.alerts)
    assert (line.kind, line.alerts, line.open_alerts, line.judged) == ("learned", 8, 1, 5)
    assert line.precision is not None
    assert line.precision == pytest.approx((0.6, 0.2307, 0.8824), abs=1e-3)
    page = browser.get("/rules").text
    assert "60%" in page
    assert "23 to 88%" in page


def test_nothing_is_claimed_of_a_rule_that_nobody_judged() -> None:
    assert RuleLine("r", "R", "low", "sigma", verdicts={"duplicate": 3}).precision is None


def test_every_rule_in_force_is_listed_with_its_text_and_tests(stand: Stand, browser: Browser) -> None:
    page = browser.get("/rules").text
    for rule in RULES.rules:
        if rule.generate:
            assert f'href="/rules/{rule.id}"' in page
    rule = next(one for one in RULES.rules if one.generate and one.tests)
    shown = browser.get(f"/rules/{rule.id}").text
    assert rule.version[:12] in shown
    assert shown.count("a match") + shown.count("no match") >= len(rule.tests)
    assert "It has not fired." in shown


def test_a_detector_that_fired_has_a_page_with_its_verdicts(stand: Stand, browser: Browser) -> None:
    judged(stand)
    shown = browser.get("/rules/learned.tool-sequence").text
    assert shown.count("<b>true positive</b>") == 3
    assert "60% of 5 judged" in shown


def test_what_never_was_has_no_page(browser: Browser) -> None:
    assert browser.get("/rules/nothing").status_code == 404


def test_firing_is_counted_by_day(stand: Stand) -> None:
    first, second = stand.file(finding("1", session_id="1"), finding("2", session_id="2"))
    with stand.state.write() as session:
        session.merge(second).created_at -= 2 * DAY
        session.merge(first).created_at -= 40 * DAY
    with stand.state.read() as session:
        assert by_day(session, "learned.tool-sequence") == ((DAYS - 3, 1),)
