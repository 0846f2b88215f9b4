"""A session from its first event to its last: the story drawn, and every event in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from monitor.store.state import Alert, Order
from monitor.web.auth import PageRead, note_reading
from monitor.web.context import Console, InConsole
from monitor.web.detail import OrderView, order_view
from monitor.web.pages.common import page
from monitor.web.problems import Problem
from monitor.web.sessions import MOST_EVENTS, alerts_of, told
from monitor.web.story import Story
from monitor.web.timeline import Line, line, moment_of

router = APIRouter(include_in_schema=False)

SHOWN = 200
"""Events on a page."""


@dataclass(frozen=True)
class SessionView:
    """What the page shows. ``fired`` holds, for each event, the alerts that name it."""

    session_id: str
    tenant: str
    agents: tuple[str, ...]
    models: tuple[str, ...]
    first: int
    last: int
    count: int
    lines: tuple[Line, ...]
    fired: dict[str, list[Alert]]
    story: Story
    alerts: Sequence[Alert]
    orders: tuple[OrderView, ...]
    number: int
    pages: int
    cut: bool


@router.get("/sessions/{session_id:path}")
async def session(
    session_id: str,
    console: InConsole,
    caller: PageRead,
    tenant: Annotated[str, Query(max_length=200)] = "default",
    number: Annotated[int, Query(alias="page", ge=1, le=1000)] = 1,
) -> HTMLResponse:
    """The page; ``tenant`` tells sessions of the same id apart."""
    alerts, orders = await run_in_threadpool(_decided, console, tenant, session_id)
    try:
        events = await console.readers.session_events(tenant, session_id, MOST_EVENTS)
    except ClickHouseError:
        raise Problem(
            503, "the event store does not answer; the alerts of the session are in the queue"
        ) from None
    if not events and not alerts:
        raise Problem(404, "no event of such a session is stored; look for its agent in the inventory")
    await run_in_threadpool(note_reading, console, caller, f"session:{tenant}/{session_id}"[:300])
    view = _view(session_id, tenant, events, alerts, orders, number)
    return page("session.html", caller, view=view, rule_name=console.rule_name)


def _decided(console: Console, tenant: str, session_id: str) -> tuple[Sequence[Alert], tuple[OrderView, ...]]:
    alerts = alerts_of(console.state, tenant, session_id)
    with console.state.read() as db:
        ids = [one.id for one in alerts]
        orders = db.scalars(select(Order).where(Order.alert_id.in_(ids)).order_by(Order.created_at)).all()
        return alerts, tuple(order_view(db, one) for one in orders)


def _view(
    session_id: str,
    tenant: str,
    events: list[dict[str, Any]],
    alerts: Sequence[Alert],
    orders: tuple[OrderView, ...],
    number: int,
) -> SessionView:
    first = moment_of(events[0]) if events else 0
    fired: dict[str, list[Alert]] = {}
    for alert in alerts:
        for event_id in alert.event_ids:
            fired.setdefault(event_id, []).append(alert)
    pages = max(1, -(-len(events) // SHOWN))
    number = min(number, pages)
    shown = events[(number - 1) * SHOWN : number * SHOWN]
    return SessionView(
        session_id,
        tenant,
        tuple(dict.fromkeys(event["agent_id"] for event in events)),
        tuple(dict.fromkeys(event["model_id"] for event in events if event.get("model_id"))),
        first,
        moment_of(events[-1]) if events else 0,
        len(events),
        tuple(line(event, first, event["event_id"] in fired) for event in shown),
        fired,
        told(events, alerts),
        alerts,
        orders,
        number,
        pages,
        len(events) == MOST_EVENTS,
    )
