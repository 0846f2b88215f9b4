"""An analyst's day, in a real browser against the real console."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from monitor.store.state import Alert
from tests.browser.chromium import Visit
from tests.browser.conftest import Arrive, Site
from tests.web.seeding import HOSTILE, finding

pytestmark = pytest.mark.browser

DENIED = "Tool ran although it had been denied"


def rows(page: Page) -> list[str]:
    """Ids of the alerts in the queue, in order."""
    ids: list[str] = page.locator("table.alerts tbody tr").evaluate_all(
        "all => all.map(row => row.dataset.id)"
    )
    return ids


def now_is(site: Site, alert_id: str) -> Alert:
    with site.stand.state.read() as session:
        found = session.get(Alert, alert_id)
        assert found
        return found


def test_a_one_time_link_leads_to_the_queue_and_the_queue_goes_live(visit: Visit) -> None:
    expect(visit.page.locator("h1")).to_contain_text("open alerts")
    expect(visit.page.locator("table.alerts")).to_contain_text(DENIED)
    expect(visit.page.locator("#live")).to_have_text("live")
    assert visit.page.locator(".histogram rect.l").count() > 5


def test_an_alert_is_acknowledged_and_closed_from_the_keyboard(visit: Visit, site: Site) -> None:
    page = visit.page
    second = rows(page)[1]
    page.keyboard.press("j")
    page.keyboard.press("j")
    row = page.locator(f"#row-{second}")
    expect(row).to_have_class(re.compile("cursor"))
    page.keyboard.press("a")
    expect(row).to_contain_text("Acknowledged")
    expect(row).to_have_class(re.compile("cursor"))
    page.keyboard.press("m")
    expect(row.locator(".owner")).to_have_text("ana")
    page.keyboard.press("c")
    page.keyboard.press("3")
    page.keyboard.type("known supplier")
    page.keyboard.press("Enter")
    expect(row).to_contain_text("Closed")
    expect(page.locator("#notice")).to_contain_text("Closed")
    alert = now_is(site, second)
    assert (alert.status, alert.verdict, alert.owner) == ("closed", "false_positive", "ana")


def test_several_alerts_are_taken_on_at_once(visit: Visit, site: Site) -> None:
    page = visit.page
    ids = rows(page)[:3]
    for press in ("j", "x", "j", "j", "Shift+X", "i"):
        page.keyboard.press(press)
    expect(page.locator("#notice")).to_contain_text("In progress: 3 alerts")
    for alert_id in ids:
        expect(page.locator(f"#row-{alert_id}")).to_contain_text("In progress")
        assert now_is(site, alert_id).status == "in_progress"


def test_enter_opens_the_drawer_which_follows_the_cursor_and_escape_shuts_it(visit: Visit) -> None:
    page = visit.page
    first, second = rows(page)[:2]
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    drawer = page.locator("#drawer article")
    expect(drawer).to_have_attribute("data-id", first)
    assert f"open={first}" in page.url
    page.keyboard.press("j")
    expect(drawer).to_have_attribute("data-id", second)
    page.reload()
    expect(drawer).to_have_attribute("data-id", second)
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    assert "open=" not in page.url


def test_the_drawer_shows_why_and_the_proof_of_the_stop(visit: Visit) -> None:
    page = visit.page
    page.locator("table.alerts").get_by_role("link", name=DENIED).click()
    drawer = page.locator("#drawer")
    expect(drawer.locator("header .why")).to_contain_text("4.1 s later")
    expect(drawer.locator(".order")).to_contain_text("contained")
    expect(drawer.locator(".steps .done")).to_have_count(7)
    expect(drawer.locator(".timeline .own")).to_have_count(2)
    expect(drawer.locator(".event[open] mark").first).to_be_visible()
    drawer.get_by_role("button", name="Acknowledge").click()
    expect(drawer.locator("header")).to_contain_text("Acknowledged")
    expect(drawer.locator(".history").last).to_contain_text("ana")


def test_news_is_announced_and_nothing_moves_until_asked(visit: Visit, site: Site) -> None:
    page = visit.page
    expect(page.locator("#live")).to_have_text("live")
    before = rows(page)
    page.keyboard.press("j")
    (alert,) = site.stand.file(finding("live", title="Fresh from the wire", level="critical"))
    expect(page.locator(".news")).to_have_text(re.compile("1 new, press"))
    assert rows(page) == before
    page.keyboard.press(".")
    expect(page.locator(f"#row-{alert.id}")).to_be_visible()
    assert rows(page) == [alert.id, *before]
    expect(page.locator(f"#row-{before[0]}")).to_have_class(re.compile("cursor"))
    expect(page.locator(".news")).to_have_count(0)


def test_news_obeys_the_filters_of_the_page(visit: Visit, site: Site) -> None:
    page = visit.page
    page.get_by_role("complementary", name="Filters").get_by_role("link", name="High").click()
    expect(page.locator("#live")).to_have_text("live")
    site.stand.file(finding("quiet", level="low"), finding("loud", level="high"))
    expect(page.locator(".news")).to_have_text(re.compile("1 new, press"))


def test_a_change_by_a_colleague_is_announced_and_not_overruled(visit: Visit, site: Site) -> None:
    page = visit.page
    first = rows(page)[0]
    expect(page.locator("#live")).to_have_text("live")
    with site.stand.state.write() as session:
        site.stand.desk.change(session, first, "bea", status="in_progress", reason="on it")
    expect(page.locator(".news")).to_have_text(re.compile("1 changed, press"))
    page.keyboard.press("j")
    page.keyboard.press("a")
    expect(page.locator("#notice .bad")).to_contain_text("look again")
    assert now_is(site, first).status == "in_progress"


def test_search_and_facets_live_in_the_address(visit: Visit) -> None:
    page = visit.page
    page.keyboard.press("/")
    page.keyboard.type("post_webhook")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=post_webhook**")
    assert len(rows(page)) == 1
    page.goto(f"{visit.url}/alerts?status=any&level=low")
    everything = len(rows(page))
    assert everything > 5
    page.get_by_role("link", name="onboarding-agent").click()
    page.wait_for_url("**agent=onboarding-agent**")
    assert len(rows(page)) == 1


def test_help_lists_the_keys_and_typing_in_the_search_is_typing(visit: Visit, site: Site) -> None:
    page = visit.page
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    expect(page.locator("#help")).to_contain_text("acknowledge")
    page.keyboard.press("Escape")
    first = rows(page)[0]
    page.keyboard.press("j")
    page.keyboard.press("/")
    page.keyboard.type("ma")
    expect(page.locator("#search")).to_have_value("ma")
    assert now_is(site, first).owner is None


def test_hostile_text_stays_text(visit: Visit, site: Site) -> None:
    hostile = {"agent_id": HOSTILE, "title": HOSTILE, "reason": HOSTILE * 40, "session_id": HOSTILE}
    (alert,) = site.stand.file(finding("bad", **hostile, evidence={"matched": {"tool_args": HOSTILE}}))
    page = visit.page
    for path in ("/alerts", f"/alerts?open={alert.id}", f"/alerts/{alert.id}"):
        page.goto(f"{visit.url}{path}")
        expect(page.locator("body")).to_contain_text("onerror=alert(1)")
        assert page.locator("img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_status_renews_itself(visit: Visit, site: Site) -> None:
    page = visit.page
    page.get_by_role("link", name="Status").click()
    expect(page.locator(".card.fresh")).to_have_count(3)
    with site.stand.state.write() as session:
        session.execute(Alert.__table__.update().values(level="low"))
    expect(page.locator(".matrix tbody tr").first.locator("td").first).to_have_text("0")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read_in_both_themes(arrive: Arrive, dark: bool) -> None:
    with arrive(dark=dark) as visit:
        ground, ink = visit.page.evaluate(
            """() => {
                const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
                const light = (colour) => {
                    canvas.fillStyle = colour;
                    canvas.fillRect(0, 0, 1, 1);
                    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
                        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const table = getComputedStyle(document.querySelector("table.alerts"));
                const reason = getComputedStyle(document.querySelector("table.alerts .why"));
                return [light(table.backgroundColor), light(reason.color)];
            }"""
        )
        assert (ground < 0.1) == dark
        assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) > 4.5
        assert visit.faults == []


def test_a_phone_shows_everything_that_matters_without_scrolling_sideways(arrive: Arrive) -> None:
    with arrive(width=390, height=780) as visit:
        page = visit.page
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator("table.alerts").get_by_role("link", name=DENIED).click()
        expect(page.locator("#drawer .steps")).to_be_visible()
        expect(page.get_by_role("button", name="Close…")).to_be_visible()
        assert page.evaluate("document.querySelector('#drawer').scrollWidth <= innerWidth")
        page.goto(f"{visit.url}/status")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert visit.faults == []
