"""The audit trail, for those who answer for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from monitor.people.reading import Asked, entries
from monitor.web.api.cursors import LATEST
from monitor.web.auth import PageAudit
from monitor.web.context import InConsole
from monitor.web.pages.common import page

router = APIRouter(include_in_schema=False)

ROWS = 100

Text = Annotated[str | None, Query(max_length=300)]


@router.get("/audit")
def audit(
    console: InConsole,
    caller: PageAudit,
    actor: Text = None,
    action: Text = None,
    subject: Text = None,
    before: Annotated[int | None, Query(ge=0, le=LATEST)] = None,
) -> HTMLResponse:
    """Who did what, newest first."""
    asked = Asked(actor or None, action or None, subject or None, before=before)
    with console.state.read() as session:
        found = entries(session, asked, ROWS)
    return page("audit.html", caller, entries=found, asked=asked, more=len(found) == ROWS)
