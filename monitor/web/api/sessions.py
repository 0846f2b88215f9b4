"""A session over the API: its calls as the drawing shows them, and every event."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from monitor.web.api.models import AlertSummary
from monitor.web.auth import ApiRead, Caller, note_reading
from monitor.web.context import Console, InConsole
from monitor.web.problems import Problem
from monitor.web.sessions import MOST_EVENTS, alerts_of, told
from monitor.web.timeline import moment_of

router = APIRouter(prefix="/api/v1", tags=["sessions"])

SessionId = Annotated[str, Path(min_length=1, max_length=512)]
Tenant = Annotated[str | None, Query(min_length=1, max_length=200, description="default: the key's")]


class CallShown(BaseModel):
    """A tool call: how it ended, who approved or refused it, and the alerts that name it."""

    number: int
    tool: str
    moment: int
    state: str
    approved: str
    refused: str
    target: str
    alerts: list[str]
    events: list[str]


class FlowShown(BaseModel):
    """A suspicious value: the argument it stands in, and the tool whose result held it."""

    argument: str
    value: str
    source: str


class SessionShown(BaseModel):
    """A session; times in microseconds since the epoch. ``cut``: there are more events than are read."""

    session_id: str
    tenant: str
    agents: list[str]
    first_event_at: int | None
    last_event_at: int | None
    events: int
    cut: bool
    calls: list[CallShown]
    flows: list[FlowShown]
    alerts: list[AlertSummary]


class EventPage(BaseModel):
    """Events in order, all columns. ``next_cursor`` asks for the page after; None on the last."""

    items: list[dict[str, Any]]
    next_cursor: str | None


@router.get("/sessions/{session_id:path}")
async def get_session(
    session_id: SessionId, console: InConsole, caller: ApiRead, tenant: Tenant = None
) -> SessionShown:
    """What an agent did in a session: 404 where nothing is stored of it."""
    whose = _tenant(caller, tenant)
    events = await _events(console, whose, session_id)
    alerts = alerts_of(console.state, whose, session_id)
    if not events and not alerts:
        raise Problem(404, "no event of such a session is stored")
    note_reading(console, caller, f"session:{whose}/{session_id}"[:300])
    story = told(events, alerts)
    calls = [
        CallShown(
            **{name: value for name, value in asdict(call).items() if name not in ("flags", "x", "y")},
            alerts=[alert_id for alert_id, _, _ in call.flags],
        )
        for call in story.calls
    ]
    return SessionShown(
        session_id=session_id,
        tenant=whose,
        agents=list(dict.fromkeys(event["agent_id"] for event in events)),
        first_event_at=moment_of(events[0]) if events else None,
        last_event_at=moment_of(events[-1]) if events else None,
        events=len(events),
        cut=len(events) == MOST_EVENTS,
        calls=calls,
        flows=[FlowShown(argument=one.argument, value=one.value, source=one.source) for one in story.flows],
        alerts=[AlertSummary.model_validate(alert) for alert in alerts],
    )


@router.get("/events")
async def list_events(
    session_id: Annotated[str, Query(min_length=1, max_length=512)],
    console: InConsole,
    caller: ApiRead,
    tenant: Tenant = None,
    after: Annotated[int, Query(alias="cursor", ge=0, le=MOST_EVENTS)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> EventPage:
    """A session's events as corrected, in order of event time; at most 5,000."""
    whose = _tenant(caller, tenant)
    events = await _events(console, whose, session_id)
    if not events:
        raise Problem(404, "no event of such a session is stored")
    note_reading(console, caller, f"session:{whose}/{session_id}"[:300])
    more = str(after + limit) if after + limit < len(events) else None
    return EventPage(items=events[after : after + limit], next_cursor=more)


def _tenant(caller: Caller, asked: str | None) -> str:
    if caller.tenant is not None and asked not in (None, caller.tenant):
        raise Problem(403, "the key belongs to another tenant")
    return asked or caller.tenant or "default"


async def _events(console: Console, tenant: str, session_id: str) -> list[dict[str, Any]]:
    try:
        return await console.readers.session_events(tenant, session_id, MOST_EVENTS)
    except ClickHouseError:
        raise Problem(503, "the event store does not answer; see the storing fault in status") from None
