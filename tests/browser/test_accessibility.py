"""No serious fault that axe finds, on any page, in either theme."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.chromium import Visit
from tests.browser.conftest import Arrive

pytestmark = pytest.mark.browser

PATHS = (
    *("/alerts", "/alerts?group=rule", "/agents", "/agents/invoice-agent", "/sessions/inv-20931"),
    *("/rules", "/rules/learned.tool-sequence", "/silences", "/status", "/people", "/account", "/audit"),
    *("/incidents", "/dashboards/fleet-overview", "/dashboards/detections"),
)


def faults(visit: Visit) -> list[str]:
    """Serious and critical violations, with the elements that have them."""
    found = Axe().run(visit.page).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


@pytest.mark.parametrize("dark", [False, True])
def test_every_page_is_free_of_serious_faults(arrive: Arrive, dark: bool) -> None:
    told = {}
    with arrive(dark=dark) as visit:
        for path in PATHS:
            visit.page.goto(f"{visit.url}{path}")
            told[path] = faults(visit)
        visit.page.goto(f"{visit.url}/incidents")
        visit.page.locator("table.rows th a").first.click()
        visit.page.locator(".chronicle").wait_for()
        for one in visit.page.locator(".doings summary").all():
            one.click()
            told[f"incident, {one.text_content()}"] = faults(visit)
        visit.page.goto(f"{visit.url}/alerts")
        visit.page.locator("table.alerts tbody tr").first.click()
        visit.page.locator("#drawer article").wait_for()
        visit.page.locator("#baseline .usual, #baseline .note").first.wait_for()
        told["drawer"] = faults(visit)
        visit.page.keyboard.press("s")
        visit.page.locator("#silencing[open]").wait_for()
        told["silence"] = faults(visit)
        visit.page.context.clear_cookies()
        visit.page.goto(f"{visit.url}/login")
        told["login"] = faults(visit)
    wrong = [f"{path}: {fault}" for path, found in told.items() for fault in found]
    assert not wrong, "\n".join(wrong)
