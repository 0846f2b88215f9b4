"""Incidents: the list, the page of one, and what is done there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Header, Query
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from monitor.alerting.gathering import CLOSED
from monitor.web.auth import Caller, PageRead, PageTriage, note_reading
from monitor.web.changes import MOST_AT_ONCE
from monitor.web.context import Console, InConsole
from monitor.web.incident_acts import act, visible
from monitor.web.incidents import PAGE_ROWS, IncidentView, evidence_events, incident_view, incidents, timeline
from monitor.web.pages.common import page

router = APIRouter(include_in_schema=False)

Reason = Annotated[str, Form(max_length=2000)]
Text = Annotated[str, Form(max_length=20_000)]
Name = Annotated[str, Form(max_length=80)]
Version = Annotated[int | None, Form()]


@router.get("/incidents")
def listed(
    console: InConsole,
    caller: PageRead,
    show: Annotated[Literal["open", "closed", "any"], Query()] = "open",
    mine: Annotated[bool, Query()] = False,
    agent: Annotated[str, Query(max_length=512)] = "",
    number: Annotated[int, Query(alias="page", ge=1, le=10_000)] = 1,
) -> HTMLResponse:
    """The list; what needs somebody, the gravest first, unless something else is asked for."""
    owner, skip = caller.actor if mine else None, (number - 1) * PAGE_ROWS
    with console.state.read() as session:
        found, total = incidents(session, show, owner, agent, skip)
    pages = -(-total // PAGE_ROWS)
    asked: dict[str, Any] = {"show": show, "mine": mine, "agent": agent, "number": number}
    return page("incidents.html", caller, 200, incidents=found, total=total, pages=pages, **asked)


@router.get("/incidents/{incident_id}")
async def incident(incident_id: str, console: InConsole, caller: PageRead) -> HTMLResponse:
    """One incident with all that happened."""
    view = await run_in_threadpool(_view, console, caller, incident_id)
    await run_in_threadpool(note_reading, console, caller, f"incident:{incident_id}")
    events, problem = await evidence_events(console.readers, view)
    return page(
        "incident.html",
        caller,
        view=view,
        told=timeline(view, events, console.rule_name),
        problem=problem,
        rule_name=console.rule_name,
        closed=view.incident.status == CLOSED,
    )


@router.post("/incidents/gather")
def gather(
    console: InConsole,
    caller: PageTriage,
    alert: Annotated[list[str], Form(max_length=MOST_AT_ONCE)],
    hx_request: Annotated[bool, Header()] = False,
) -> Response:
    """Go to the incident of one alert, or make one of several; each named ``ID`` or ``ID@VERSION``."""
    ids = [text.partition("@")[0] for text in alert]
    made = act(console, caller, "gather", lambda desk, session: desk.gather(session, ids, caller.actor))
    return _to(made.id, hx_request)


@router.post("/incidents/{incident_id}/take")
def take(incident_id: str, console: InConsole, caller: PageTriage, version: Version = None) -> Response:
    """Make it one's own."""
    who = caller.actor
    act(console, caller, "take", lambda desk, session: desk.take(session, incident_id, who, version))
    return _to(incident_id)


@router.post("/incidents/{incident_id}/give-back")
def give_back(
    incident_id: str, console: InConsole, caller: PageTriage, reason: Reason, version: Version = None
) -> Response:
    """Leave it to whoever comes next."""
    given = (incident_id, caller.actor, reason, version)
    act(console, caller, "give-back", lambda desk, session: desk.give_back(session, *given), reason)
    return _to(incident_id)


@router.post("/incidents/{incident_id}/close")
def close(
    incident_id: str,
    console: InConsole,
    caller: PageTriage,
    verdict: Name,
    reason: Reason,
    version: Version = None,
) -> Response:
    """Close it and the alerts that are still open in it."""
    given = (incident_id, caller.actor, verdict, reason, version)
    act(console, caller, "close", lambda desk, session: desk.close(session, *given), reason)
    return _to(incident_id)


@router.post("/incidents/{incident_id}/comments")
def comment(incident_id: str, console: InConsole, caller: PageTriage, text: Text) -> Response:
    """Say something for whoever reads on."""
    given = (incident_id, caller.actor, text)
    act(console, caller, "comment", lambda desk, session: desk.comment(session, *given))
    return _to(incident_id)


@router.post("/incidents/{incident_id}/hand-over")
def hand_over(
    incident_id: str, console: InConsole, caller: PageTriage, to: Name, note: Text, version: Version = None
) -> Response:
    """Make it somebody else's, with a note."""
    given = (incident_id, caller.actor, to, note, version)
    act(console, caller, "hand-over", lambda desk, session: desk.hand_over(session, *given))
    return _to(incident_id)


@router.post("/incidents/{incident_id}/merge")
def merge(
    incident_id: str,
    console: InConsole,
    caller: PageTriage,
    other: Name,
    reason: Reason,
    version: Version = None,
) -> Response:
    """Move its alerts into another one."""
    given = (incident_id, other, caller.actor, reason, version)
    act(console, caller, "merge", lambda desk, session: desk.merge(session, *given), reason, incident_id)
    return _to(other)


@router.post("/incidents/{incident_id}/split")
def split(
    incident_id: str,
    console: InConsole,
    caller: PageTriage,
    alert: Annotated[list[str], Form(max_length=MOST_AT_ONCE)],
    reason: Reason,
    version: Version = None,
) -> Response:
    """Move some alerts into an incident of their own."""
    given = (incident_id, alert, caller.actor, reason, version)
    made = act(
        console, caller, "split", lambda desk, session: desk.split(session, *given), reason, incident_id
    )
    return _to(made.id)


def _to(incident_id: str, hx_request: bool = False) -> Response:
    if hx_request:
        return Response(status_code=204, headers={"HX-Redirect": f"/incidents/{incident_id}"})
    return RedirectResponse(f"/incidents/{incident_id}", 303)


def _view(console: Console, caller: Caller, incident_id: str) -> IncidentView:
    with console.state.read() as session:
        return incident_view(session, visible(session, incident_id, caller))
