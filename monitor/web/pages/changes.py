"""What an analyst does to alerts: acknowledge, take, work on, close with a verdict."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Header
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from monitor.web.auth import PageTriage
from monitor.web.changes import MOST_AT_ONCE, Outcome, Target, Wanted, change_all
from monitor.web.context import InConsole
from monitor.web.pages.common import page
from monitor.web.problems import Problem
from monitor.web.queue import order_states

router = APIRouter(include_in_schema=False)

DONE = {
    "acknowledged": "Acknowledged",
    "in_progress": "In progress",
    "closed": "Closed",
    "new": "Put back to new",
}


@router.post("/alerts/changes")
def change(
    console: InConsole,
    caller: PageTriage,
    alert: Annotated[list[str], Form(max_length=MOST_AT_ONCE)],
    status: Annotated[str | None, Form()] = None,
    verdict: Annotated[str | None, Form()] = None,
    mine: Annotated[bool, Form()] = False,
    reason: Annotated[str, Form(max_length=2000)] = "",
    shown: Annotated[list[str], Form()] = [],  # noqa: B006 - FastAPI copies it
    hx_request: Annotated[bool, Header()] = False,
) -> Response:
    """Change alerts, each named ``ID@VERSION``; ``shown`` are those whose rows the page can renew."""
    try:
        targets = [Target.parse(text) for text in alert]
    except ValueError as error:
        raise Problem(422, str(error)) from None
    owner = caller.actor if mine else None
    outcome = change_all(console, caller, targets, Wanted(status, verdict, owner, reason.strip()))
    if not hx_request:
        if outcome.refused:
            raise Problem(409, "; ".join(outcome.refused))
        return RedirectResponse(f"/alerts/{targets[0].alert_id}", 303)
    with console.state.read() as session:
        orders = order_states(session, outcome.changed)
    answer = page(
        "changed.html",
        caller,
        alerts=[changed for changed in outcome.changed if changed.id in shown],
        words=_words(outcome, status, mine),
        refused=outcome.refused,
        rule_name=console.rule_name,
        orders=orders,
    )
    answer.headers["HX-Trigger"] = "alert-changed"
    return answer


def _words(outcome: Outcome, status: str | None, mine: bool) -> str:
    count = len(outcome.changed)
    if not count:
        return ""
    done = DONE.get(status or "", "Assigned to you" if mine else "Changed")
    return f"{done}: {count} alerts" if count > 1 else done
