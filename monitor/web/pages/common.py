"""What every page needs: the frame around it, and the answer's headers."""

from __future__ import annotations

from typing import Any

from fastapi.responses import HTMLResponse

from monitor.alerting.words import STATUSES, TRANSITIONS, VERDICTS
from monitor.web.auth import Caller
from monitor.web.templating import render

LETTERS = {"critical": "C", "high": "H", "medium": "M", "low": "L", "informational": "I"}
"""Severity is never told by colour alone."""


def page(template: str, caller: Caller, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, or a part of one, for somebody who is signed in."""
    words = {"letters": LETTERS, "statuses": STATUSES, "verdicts": VERDICTS, "transitions": TRANSITIONS}
    return HTMLResponse(render(template, caller=caller, **words, **values), status)
