"""Agents, sessions, rules, silences and people in a real browser, by keyboard where there are keys."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.chromium import Visit
from tests.browser.conftest import Arrive

pytestmark = pytest.mark.browser

TITLE = "Secret read, then sent out in an unusual order"


def test_an_alert_is_silenced_by_keyboard_and_the_silence_is_listed(visit: Visit) -> None:
    page = visit.page
    page.locator("table.alerts").get_by_role("link", name=TITLE).click()
    page.locator("#drawer article").wait_for()
    page.keyboard.press("s")
    dialog = page.locator("#silencing")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text(re.compile(r"would have hidden \d+ alerts in 7 days, \d of them true"))
    before = dialog.locator(".told").inner_text()
    dialog.get_by_label("Of").select_option("rule")
    expect(dialog.locator(".told")).not_to_have_text(before)
    dialog.get_by_label("Why").fill("the research team is migrating")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("Silenced for 7 days")
    expect(dialog).to_be_hidden()
    page.keyboard.press("g")
    page.keyboard.press("l")
    page.wait_for_url(re.compile("/silences$"))
    expect(page.locator("tbody")).to_contain_text("the research team is migrating")
    page.get_by_role("button", name="End now").click()
    expect(page.locator("tbody")).to_contain_text("ended by")


@pytest.mark.parametrize(
    ("key", "heading"), [("a", "open alerts"), ("g", "Agents"), ("r", "Rules"), ("s", "Status")]
)
def test_g_and_a_letter_go_to_a_page(visit: Visit, key: str, heading: str) -> None:
    visit.page.keyboard.press("g")
    visit.page.keyboard.press(key)
    expect(visit.page.locator("h1").first).to_contain_text(heading)


def test_from_the_inventory_over_an_agent_to_its_session_and_the_alert_in_it(visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.url}/agents")
    row = page.locator("tr", has=page.get_by_role("link", name="invoice-agent"))
    expect(row).to_contain_text("never")
    expect(row).to_contain_text("stopped")
    page.get_by_role("link", name="invoice-agent").click()
    expect(page.locator("main")).to_contain_text("large-2026-02")
    page.get_by_role("link", name="inv-20931").click()
    expect(page.locator("svg.story .call")).to_have_count(2)
    expect(page.locator("svg.story .flagged")).to_have_count(1)
    page.locator("svg.story a").first.click()
    page.wait_for_url(re.compile("/alerts/a_"))


def test_an_agent_is_declared_and_no_longer_stands_out(visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.url}/agents/support-agent")
    expect(page.locator("h1")).to_contain_text("never declared")
    page.get_by_label("Owner").fill("service desk")
    page.get_by_label("Tools it may use").fill("export_customers")
    page.get_by_role("button", name="Declare").click()
    expect(page.locator("h1")).not_to_contain_text("never declared")
    expect(page.locator(".facts")).to_contain_text("service desk")


def test_an_admin_adds_somebody_who_then_sees_only_what_the_role_allows(visit: Visit, arrive: Arrive) -> None:
    page = visit.page
    page.goto(f"{visit.url}/people")
    page.get_by_label("Name").fill("vic")
    page.get_by_role("button", name="Add, and make a link").click()
    link = page.locator(".told code").inner_text()
    with arrive() as other:
        other.page.context.clear_cookies()
        other.page.goto(f"{visit.url}{link}")
        other.page.get_by_role("button", name="Sign in").click()
        other.page.wait_for_url(f"{visit.url}/alerts")
        expect(other.page.get_by_role("link", name="People")).to_have_count(0)
        other.page.locator("table.alerts tbody tr").first.click()
        other.page.locator("#drawer article").wait_for()
        expect(other.page.locator("#drawer").get_by_role("button", name="Acknowledge")).to_have_count(0)
        assert other.page.goto(f"{visit.url}/people").status == 403  # type: ignore[union-attr]


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_a_phone(arrive: Arrive, dark: bool) -> None:
    paths = (
        "/agents",
        "/agents/invoice-agent",
        "/sessions/inv-20931",
        "/rules",
        "/silences",
        "/people",
        "/audit",
        "/incidents",
        "/alerts",
    )
    with arrive(width=400, height=860, dark=dark) as visit:
        for path in paths:
            visit.page.goto(f"{visit.url}{path}")
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400, path
        visit.page.goto(f"{visit.url}/incidents")
        visit.page.locator("table.rows th a").first.click()
        visit.page.locator(".chronicle").wait_for()
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400
        assert visit.faults == []
