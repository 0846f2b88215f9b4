"""Screenshots of a seeded console: ``python -m tests.browser.screenshots FOLDER``.

``queue.png`` is the queue with an alert open beside it; the other files show the pages one by one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.browser.chromium import Visit, chromium, serving, visiting
from tests.web.seeding import console, open_store, seed

TITLE = "Tool ran although it had been denied"


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
    visit.page.goto(f"{visit.url}/status")
    shot("status", full=True)


def main(folder: Path) -> None:
    """Take them all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        store = open_store(Path(data) / "store")
        with console(Path(data) / "console", store) as stand, chromium() as browser:
            seed(stand, store)
            with serving(stand.app) as url:
                for dark in (False, True):
                    with visiting(browser, url, stand, dark=dark) as visit:
                        pages(visit, folder, "-dark" if dark else "")
                with visiting(browser, url, stand, width=400, height=860) as visit:
                    pages(visit, folder, "-phone")
        store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
