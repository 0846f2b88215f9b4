"""The alert queue, its drawer, and the page of one alert."""

from __future__ import annotations

from typing import Annotated, Any

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from monitor.store.state import Alert
from monitor.web import queue
from monitor.web.api.cursors import LATEST
from monitor.web.auth import Caller, PageRead, note_reading
from monitor.web.baseline import baseline
from monitor.web.context import Console, InConsole
from monitor.web.detail import AlertView, alert_view, stored
from monitor.web.filters import RANGES, AlertFilter
from monitor.web.pages.common import page
from monitor.web.problems import Problem

router = APIRouter(include_in_schema=False)

MOST_PAGES = 10_000


@router.get("/")
def home(_caller: PageRead) -> Response:
    """The queue is where the work is."""
    return RedirectResponse("/alerts", 303)


@router.get("/alerts")
async def alerts(
    request: Request, console: InConsole, caller: PageRead, number: Annotated[int, Query(alias="page")] = 1
) -> HTMLResponse:
    """The queue; the query string says what it shows and which alert is open."""
    asked = AlertFilter.parse(request.query_params)
    shown = await run_in_threadpool(_queue, console, asked, min(max(number, 1), MOST_PAGES))
    opened: AlertView | None = shown["view"]
    if opened is not None:
        await run_in_threadpool(note_reading, console, caller, f"alert:{opened.alert.id}")
    events = await stored(console.readers, opened) if opened else None
    return page(
        "alerts.html",
        caller,
        **shown,
        asked=asked,
        ranges=RANGES,
        stored=events,
        rule=console.rule(opened.alert.rule_id) if opened else None,
        rule_name=console.rule_name,
    )


def _queue(console: Console, asked: AlertFilter, number: int) -> dict[str, Any]:
    with console.state.read() as session:
        found, total = queue.rows(session, asked, (number - 1) * queue.PAGE_ROWS)
        return {
            "seen": queue.watermark(session),
            "changed": queue.last_change(session),
            "alerts": found,
            "total": total,
            "orders": queue.order_states(session, found),
            "number": number,
            "pages": -(-total // queue.PAGE_ROWS),
            "facets": queue.facets(session, asked),
            "groups": queue.groups(session, asked) if asked.group else None,
            "bars": queue.histogram(session, asked),
            "view": _view(session, asked.open_id) if asked.open_id else None,
        }


@router.get("/alerts/fresh")
def fresh(
    request: Request,
    console: InConsole,
    caller: PageRead,
    seen: Annotated[int, Query(ge=0, le=LATEST)],
    changed: Annotated[int, Query(ge=0, le=LATEST)],
) -> HTMLResponse:
    """How much the queue, as this page shows it, has changed since it was drawn."""
    asked = AlertFilter.parse(request.query_params)
    with console.state.read() as session:
        new, other = queue.fresh(session, asked, seen, changed, caller.actor)
    return page("fresh.html", caller, new=new, other=other)


@router.get("/alerts/{alert_id}")
async def alert(alert_id: str, console: InConsole, caller: PageRead) -> HTMLResponse:
    """The page of one alert."""
    return page("alert.html", caller, **await _everything(console, caller, alert_id), drawer=False)


@router.get("/alerts/{alert_id}/drawer")
async def drawer(alert_id: str, console: InConsole, caller: PageRead) -> HTMLResponse:
    """The same alert beside the queue."""
    return page("alert_body.html", caller, **await _everything(console, caller, alert_id), drawer=True)


@router.get("/alerts/{alert_id}/body")
async def body(alert_id: str, console: InConsole, caller: PageRead) -> HTMLResponse:
    """The page's main part alone, after a change."""
    return page("alert_body.html", caller, **await _everything(console, caller, alert_id), drawer=False)


@router.get("/alerts/{alert_id}/orders")
def orders(alert_id: str, console: InConsole, caller: PageRead) -> HTMLResponse:
    """The kill switch's part, which goes on while the reader looks."""
    return page("orders.html", caller, view=_one(console, alert_id), rule_name=console.rule_name)


@router.get("/alerts/{alert_id}/baseline")
async def against_baseline(alert_id: str, console: InConsole, caller: PageRead) -> HTMLResponse:
    """What the agent does now beside what it usually does; the drawer asks for it once it stands."""
    alert = await run_in_threadpool(_alert, console, alert_id)
    try:
        found, problem = await baseline(console.readers, alert), ""
    except ClickHouseError:
        found, problem = None, "The event store does not answer."
    return page("baseline.html", caller, baseline=found, problem=problem)


def _alert(console: Console, alert_id: str) -> Alert:
    with console.state.read() as session:
        found = session.get(Alert, alert_id)
    if found is None:
        raise Problem(404, "there is no such alert; the queue lists those there are")
    return found


def _view(session: Session, alert_id: str) -> AlertView | None:
    found = session.get(Alert, alert_id)
    return alert_view(session, found) if found is not None else None


async def _everything(console: Console, caller: Caller, alert_id: str) -> dict[str, Any]:
    view = await run_in_threadpool(_one, console, alert_id)
    await run_in_threadpool(note_reading, console, caller, f"alert:{alert_id}")
    return {
        "view": view,
        "stored": await stored(console.readers, view),
        "rule": console.rule(view.alert.rule_id),
        "rule_name": console.rule_name,
    }


def _one(console: Console, alert_id: str) -> AlertView:
    with console.state.read() as session:
        view = _view(session, alert_id)
    if view is None:
        raise Problem(404, "there is no such alert; the queue lists those there are")
    return view
