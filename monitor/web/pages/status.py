"""The daemon looking at itself: processes, lag, what waits and what failed."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from monitor.web.auth import PageRead
from monitor.web.context import InConsole
from monitor.web.pages.common import page
from monitor.web.pulse import pulse

router = APIRouter(include_in_schema=False)


@router.get("/status")
def status(console: InConsole, caller: PageRead) -> HTMLResponse:
    """The page."""
    with console.state.read() as session:
        return page("status.html", caller, pulse=pulse(session))


@router.get("/status/body")
def body(console: InConsole, caller: PageRead) -> HTMLResponse:
    """Its changing part alone."""
    with console.state.read() as session:
        return page("status_body.html", caller, pulse=pulse(session))
