"""Silences: made from an alert, listed, ended."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Header, Query
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from monitor.alerting.silences import DAY, Pattern, SilenceError, end, preview, silence
from monitor.store.state import Alert, Silence, now
from monitor.web.auth import PageRead, PageTriage
from monitor.web.context import InConsole
from monitor.web.pages.common import page
from monitor.web.problems import Problem

router = APIRouter(include_in_schema=False)

MOST = 500
Wide = Literal["agent", "rule"]


@router.get("/silences")
def silences(console: InConsole, caller: PageRead) -> HTMLResponse:
    """Those in force first, then those that have ended, the latest first."""
    moment = now()
    with console.state.read() as session:
        order = (Silence.ends_at > moment).desc(), Silence.ends_at.desc()
        found = session.scalars(select(Silence).order_by(*order).limit(MOST)).all()
        hidden = {one.id: _hidden(session, one) for one in found}
    return page(
        "silences.html", caller, silences=found, hidden=hidden, moment=moment, rule_name=console.rule_name
    )


@router.get("/alerts/{alert_id}/silence")
def ask(
    alert_id: str, console: InConsole, caller: PageTriage, wide: Annotated[Wide, Query()] = "agent"
) -> HTMLResponse:
    """The form, with what such a silence would have hidden."""
    with console.state.read() as session:
        alert = session.get(Alert, alert_id)
        if alert is None:
            raise Problem(404, "there is no such alert")
        seen = preview(session, _pattern(alert, wide))
    return page("silence.html", caller, alert=alert, wide=wide, preview=seen, rule_name=console.rule_name)


@router.post("/alerts/{alert_id}/silence")
def make(
    alert_id: str,
    console: InConsole,
    caller: PageTriage,
    days: Annotated[int, Form(ge=1, le=90)],
    reason: Annotated[str, Form(max_length=2000)],
    wide: Annotated[Wide, Form()] = "agent",
    hx_request: Annotated[bool, Header()] = False,
) -> Response:
    """Silence what this alert is about; the person is its owner."""
    try:
        with console.state.write() as session:
            alert = session.get(Alert, alert_id)
            if alert is None:
                raise Problem(404, "there is no such alert")
            pattern = _pattern(alert, wide)
            made = silence(session, pattern, caller.actor, reason, now() + days * DAY)
            detail = {"rule": pattern.rule_id, "agent": pattern.agent_id, "days": days}
            session.add(caller.act("silence.create", f"silence:{made.id}", reason, detail))
    except SilenceError as error:
        raise Problem(409, str(error)) from None
    if not hx_request:
        return RedirectResponse("/silences", 303)
    words = f"Silenced for {days} day{'s' if days != 1 else ''}"
    answer = page("changed.html", caller, alerts=(), words=words, refused=())
    answer.headers["HX-Trigger"] = "alert-changed"
    return answer


@router.post("/silences/{silence_id}/end")
def stop(
    silence_id: str,
    console: InConsole,
    caller: PageTriage,
    reason: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """End a silence before its day."""
    try:
        with console.state.write() as session:
            end(session, silence_id, caller.actor)
            session.add(caller.act("silence.end", f"silence:{silence_id}", reason))
    except SilenceError as error:
        raise Problem(409, str(error)) from None
    return RedirectResponse("/silences", 303)


def _pattern(alert: Alert, wide: Wide) -> Pattern:
    return Pattern(alert.rule_id, alert.tenant, alert.agent_id if wide == "agent" else None)


def _hidden(session: Session, one: Silence) -> int:
    pattern = Pattern(one.rule_id, one.tenant, one.agent_id)
    hidden = select(func.count()).select_from(Alert)
    found = session.scalar(
        hidden.where(pattern.condition(), Alert.created_at >= one.created_at, Alert.created_at < one.ends_at)
    )
    return found or 0
