"""Debian's Chromium, driven by Playwright; every request to another host and every console error is kept."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from tests.daemons import until
from tests.people import link
from tests.web.seeding import Stand

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_path() -> str | None:
    """Where Chromium is: CHROMIUM names it, or the path holds it."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser with an empty profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The application on a free port of this machine; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(
            uvicorn.Config(
                app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        until(lambda: server.started, "the console to listen")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@dataclass
class Visit:
    """A signed-in page, and what it did that no page of the console may do."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note console errors, script errors, dialogs and requests to other hosts."""
        here = urlsplit(self.url).netloc
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.faults.append(m.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.faults.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda r: self._check(r.url, here))

    def _check(self, url: str, here: str) -> None:
        if urlsplit(url).netloc != here and not url.startswith("data:"):
            self.faults.append(f"request to another host: {url}")


@contextmanager
def visiting(
    browser: Browser,
    url: str,
    stand: Stand,
    *,
    dark: bool = False,
    width: int = 1440,
    height: int = 900,
    scale: float = 1,
) -> Iterator[Visit]:
    """Sign in by a one-time link and arrive at the queue."""
    size: ViewportSize = {"width": width, "height": height}
    context = browser.new_context(
        viewport=size, color_scheme="dark" if dark else "light", device_scale_factor=scale
    )
    visit = Visit(context.new_page(), url)
    visit.watch()
    visit.page.goto(f"{url}/login?token={link(stand.state, 'ana')}")
    visit.page.get_by_role("button", name="Sign in").click()
    visit.page.wait_for_url(f"{url}/alerts")
    yield visit
    context.close()
