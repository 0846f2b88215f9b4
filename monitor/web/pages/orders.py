"""An order that a guardrail holds waits here for a human."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Header
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from monitor.response.states import OrderError
from monitor.web.auth import PageRespond
from monitor.web.context import InConsole
from monitor.web.pages.common import page
from monitor.web.problems import Problem

router = APIRouter(include_in_schema=False)


@router.post("/orders/{request_id}/decision")
def decide(
    request_id: str,
    console: InConsole,
    caller: PageRespond,
    decision: Annotated[Literal["approve", "cancel"], Form()],
    reason: Annotated[str, Form(max_length=2000)] = "",
    hx_request: Annotated[bool, Header()] = False,
) -> Response:
    """Let a held order go, or take it back. Either asks for a reason."""
    desk = console.order_desk
    refused: list[str] = []
    alert_id: str | None = None
    try:
        with console.state.write() as session:
            act = desk.approve if decision == "approve" else desk.cancel
            alert_id = act(session, request_id, caller.actor, reason).alert_id
            session.add(caller.act(f"order.{decision}", f"order:{request_id}", reason))
        desk.wake()
    except OrderError as error:
        refused.append(str(error))
    if not hx_request:
        if refused:
            raise Problem(409, refused[0])
        return RedirectResponse(f"/alerts/{alert_id}" if alert_id else "/alerts", 303)
    words = "" if refused else "Order approved" if decision == "approve" else "Order cancelled"
    answer = page("changed.html", caller, alerts=(), words=words, refused=refused)
    answer.headers["HX-Trigger"] = "alert-changed"
    return answer
