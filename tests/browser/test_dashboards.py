"""Dashboards in a real browser: every chart is drawn, under the content security policy, in both themes."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Arrive, Site
from tests.web.fleet import fleet, judged_alerts

pytestmark = pytest.mark.browser

NAMES = ("fleet-overview", "detections", "policy-blocks", "models-and-prompts")


@pytest.fixture(autouse=True)
def _busy(site: Site) -> None:
    fleet(site.stand.store)
    judged_alerts(site.stand)


def widths(page: Page) -> list[float]:
    """How wide each chart's widest mark is: nothing, where a scale could not be made out."""
    return page.locator("[data-drawn]").evaluate_all(
        """charts => charts.map(chart => Math.max(0, ...[
            ...chart.querySelectorAll(".mark-rect path, .mark-area path, .mark-line path")
        ].map(mark => mark.getBoundingClientRect().width)))"""
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1440, 400])
def test_every_chart_of_every_dashboard_is_drawn(arrive: Arrive, dark: bool, width: int) -> None:
    with arrive(dark=dark, width=width) as visit:
        for name in NAMES:
            visit.page.goto(f"{visit.url}/dashboards/{name}")
            expect(visit.page.locator(f"[data-drawn={'dark' if dark else 'light'}]")).to_have_count(5)
            assert min(widths(visit.page)) > 2, name
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.faults == []


def test_the_charts_follow_the_readers_theme(arrive: Arrive) -> None:
    with arrive() as visit:
        visit.page.goto(f"{visit.url}/dashboards/detections")
        expect(visit.page.locator("[data-drawn=light]")).to_have_count(5)
        visit.page.emulate_media(color_scheme="dark")
        expect(visit.page.locator("[data-drawn=dark]")).to_have_count(5)
        assert visit.faults == []


def test_a_chart_tells_its_figures_on_hover_and_as_a_table(arrive: Arrive) -> None:
    with arrive() as visit:
        page = visit.page
        page.goto(f"{visit.url}/dashboards/fleet-overview")
        expect(page.locator("[data-drawn]")).to_have_count(5)
        bar = page.get_by_role("region", name="Busiest agents").locator(".mark-rect path").first
        bar.scroll_into_view_if_needed()
        place = bar.bounding_box()
        assert place is not None
        page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        expect(page.locator("#vg-tooltip-element.visible")).to_contain_text("support-agent")
        region = page.get_by_role("region", name="Busiest agents")
        region.get_by_text("As a table").click()
        expect(region.locator("tbody tr").first).to_contain_text("support-agent")
        assert visit.faults == []


def test_the_way_there_is_in_the_bar_and_by_keys(arrive: Arrive) -> None:
    with arrive() as visit:
        visit.page.get_by_role("link", name="Dashboards").click()
        visit.page.wait_for_url("**/dashboards/fleet-overview")
        visit.page.get_by_role("link", name="7d").click()
        visit.page.wait_for_url("**range=7d")
        visit.page.get_by_role("link", name="Policy blocks").click()
        visit.page.wait_for_url("**/policy-blocks?range=7d")
