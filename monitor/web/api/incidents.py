"""Incidents over the API. ``If-Match`` with the ETag of a reading keeps two people apart."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from monitor.alerting.gathering import IN_PROGRESS, OPEN
from monitor.store.state import Alert, Incident, IncidentEntry
from monitor.web.api.cursors import after, cursor, version_of
from monitor.web.api.models import AlertSummary, Answer, Level, Verdict
from monitor.web.auth import ApiRead, ApiTriage, note_reading
from monitor.web.context import InConsole
from monitor.web.incident_acts import act, visible
from monitor.web.problems import Problem

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])

MOST_ALERTS = 500
Reason = Annotated[str, Field(min_length=1, max_length=2000)]
Text = Annotated[str, Field(min_length=1, max_length=20_000)]
IfMatch = Annotated[str | None, Header()]


class IncidentSummary(Answer):
    """An incident as the list shows it; times in microseconds since the epoch."""

    id: str
    tenant: str
    environment: str | None
    agent_id: str
    title: str
    level: str
    status: str
    verdict: str | None
    owner: str | None
    alerts: int
    first_event_at: int
    last_event_at: int
    created_at: int
    updated_at: int
    acknowledged_at: int | None
    closed_at: int | None
    previous_id: str | None
    merged_into: str | None
    version: int


class IncidentPage(BaseModel):
    """Incidents, newest first. ``next_cursor`` asks for the page after; None on the last."""

    items: list[IncidentSummary]
    next_cursor: str | None


class EntryShown(Answer):
    """A line of an incident's log."""

    at: int
    actor: str
    kind: str
    text: str
    detail: dict[str, Any]


class IncidentDetail(BaseModel):
    """An incident with its alerts, gravest first, and its log, oldest first."""

    incident: IncidentSummary
    alerts: list[AlertSummary]
    log: list[EntryShown]


class Body(BaseModel):
    """What a change takes; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Gathered(Body):
    """Alerts that belong together."""

    alerts: list[str] = Field(min_length=1, max_length=500)
    reason: str = Field("", max_length=2000)


class Closing(Body):
    """How it ended."""

    verdict: Verdict
    reason: Reason


class Because(Body):
    """Why."""

    reason: Reason


class Comment(Body):
    """What somebody says."""

    text: Text


class HandOver(Body):
    """To whom, and what they must know."""

    to: str = Field(min_length=1, max_length=80)
    note: Text


class Merge(Body):
    """The incident that takes the alerts."""

    into: str = Field(min_length=1, max_length=80)
    reason: Reason


class Split(Body):
    """The alerts that are another story."""

    alerts: list[str] = Field(min_length=1, max_length=500)
    reason: Reason


@router.get("")
def list_incidents(
    console: InConsole,
    caller: ApiRead,
    status: Annotated[list[str] | None, Query(max_length=3, description="open, in_progress, closed")] = None,
    level: Annotated[list[Level] | None, Query()] = None,
    agent: Annotated[str | None, Query(max_length=512)] = None,
    owner: Annotated[str | None, Query(max_length=200)] = None,
    after_cursor: Annotated[str | None, Query(alias="cursor", max_length=300)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> IncidentPage:
    """Incidents, newest first; those that are open unless some statuses are named."""
    wanted: list[ColumnElement[bool]] = [Incident.status.in_(status or [OPEN, IN_PROGRESS])]
    if level:
        wanted.append(Incident.level.in_(level))
    if caller.tenant is not None:
        wanted.append(Incident.tenant == caller.tenant)
    for column, value in ((Incident.agent_id, agent), (Incident.owner, owner)):
        if value is not None:
            wanted.append(column == value)
    if after_cursor is not None:
        wanted.append(after(after_cursor, Incident.created_at, Incident.id))
    query = select(Incident).where(and_(*wanted))
    with console.state.read() as db:
        found = db.scalars(
            query.order_by(Incident.created_at.desc(), Incident.id.desc()).limit(limit + 1)
        ).all()
    shown = found[:limit]
    more = cursor(shown[-1].created_at, shown[-1].id) if len(found) > limit else None
    return IncidentPage(items=[IncidentSummary.model_validate(one) for one in shown], next_cursor=more)


@router.post("", status_code=201)
def gather_alerts(wanted: Gathered, console: InConsole, caller: ApiTriage) -> IncidentSummary:
    """One incident for these alerts: theirs, or a new one. 409 where that cannot be."""

    def do(desk: Any, session: Session) -> Incident:
        if caller.tenant is not None:
            tenants = session.scalars(select(Alert.tenant).where(Alert.id.in_(wanted.alerts)))
            if set(tenants) - {caller.tenant}:
                raise Problem(404, "there is no such alert; GET /api/v1/alerts lists them")
        made: Incident = desk.gather(session, wanted.alerts, caller.actor, wanted.reason)
        return made

    return IncidentSummary.model_validate(act(console, caller, "gather", do, wanted.reason))


@router.get("/{incident_id}")
def get_incident(incident_id: str, console: InConsole, caller: ApiRead, response: Response) -> IncidentDetail:
    """One incident with alerts and log. The ETag is its version, for ``If-Match``."""
    with console.state.read() as db:
        found = visible(db, incident_id, caller)
        of_it = select(Alert).where(Alert.incident_id == found.id).order_by(Alert.first_event_at)
        entries = select(IncidentEntry).where(IncidentEntry.incident_id == found.id)
        answer = IncidentDetail(
            incident=IncidentSummary.model_validate(found),
            alerts=[AlertSummary.model_validate(one) for one in db.scalars(of_it.limit(MOST_ALERTS))],
            log=[
                EntryShown.model_validate(one)
                for one in db.scalars(entries.order_by(IncidentEntry.id).limit(1000))
            ],
        )
    note_reading(console, caller, f"incident:{incident_id}")
    response.headers["ETag"] = f'"{answer.incident.version}"'
    return answer


@router.post("/{incident_id}/take")
def take_incident(
    incident_id: str, console: InConsole, caller: ApiTriage, response: Response, if_match: IfMatch = None
) -> IncidentSummary:
    """Make it the caller's own, in progress."""
    given = (incident_id, caller.actor, version_of(if_match))
    made = act(console, caller, "take", lambda desk, db: desk.take(db, *given), "", incident_id)
    return _answer(made, response)


@router.post("/{incident_id}/give-back")
def give_back_incident(
    incident_id: str, why: Because, console: InConsole, caller: ApiTriage, response: Response,
    if_match: IfMatch = None,
) -> IncidentSummary:  # fmt: skip
    """Leave it to whoever comes next."""
    given = (incident_id, caller.actor, why.reason, version_of(if_match))
    made = act(
        console, caller, "give-back", lambda desk, db: desk.give_back(db, *given), why.reason, incident_id
    )
    return _answer(made, response)


@router.post("/{incident_id}/close")
def close_incident(
    incident_id: str, ending: Closing, console: InConsole, caller: ApiTriage, response: Response,
    if_match: IfMatch = None,
) -> IncidentSummary:  # fmt: skip
    """Close it, and the alerts that are still open in it, with one verdict."""
    given = (incident_id, caller.actor, ending.verdict, ending.reason, version_of(if_match))
    made = act(console, caller, "close", lambda desk, db: desk.close(db, *given), ending.reason, incident_id)
    return _answer(made, response)


@router.post("/{incident_id}/comments", status_code=201)
def comment_on_incident(
    incident_id: str, said: Comment, console: InConsole, caller: ApiTriage, response: Response
) -> IncidentSummary:
    """Say something; a closed incident takes comments too."""
    given = (incident_id, caller.actor, said.text)
    made = act(console, caller, "comment", lambda desk, db: desk.comment(db, *given), "", incident_id)
    return _answer(made, response)


@router.post("/{incident_id}/hand-over")
def hand_incident_over(
    incident_id: str, wanted: HandOver, console: InConsole, caller: ApiTriage, response: Response,
    if_match: IfMatch = None,
) -> IncidentSummary:  # fmt: skip
    """Make it somebody else's, with a note."""
    given = (incident_id, caller.actor, wanted.to, wanted.note, version_of(if_match))
    made = act(console, caller, "hand-over", lambda desk, db: desk.hand_over(db, *given), "", incident_id)
    return _answer(made, response)


@router.post("/{incident_id}/merge")
def merge_incident(
    incident_id: str, wanted: Merge, console: InConsole, caller: ApiTriage, response: Response,
    if_match: IfMatch = None,
) -> IncidentSummary:  # fmt: skip
    """Move its alerts into another one, which is the answer."""
    given = (incident_id, wanted.into, caller.actor, wanted.reason, version_of(if_match))
    made = act(console, caller, "merge", lambda desk, db: desk.merge(db, *given), wanted.reason, incident_id)
    return _answer(made, response)


@router.post("/{incident_id}/split", status_code=201)
def split_incident(
    incident_id: str, wanted: Split, console: InConsole, caller: ApiTriage, response: Response,
    if_match: IfMatch = None,
) -> IncidentSummary:  # fmt: skip
    """Move some alerts into an incident of their own, which is the answer."""
    given = (incident_id, wanted.alerts, caller.actor, wanted.reason, version_of(if_match))
    made = act(console, caller, "split", lambda desk, db: desk.split(db, *given), wanted.reason, incident_id)
    return _answer(made, response)


def _answer(incident: Incident, response: Response) -> IncidentSummary:
    response.headers["ETag"] = f'"{incident.version}"'
    return IncidentSummary.model_validate(incident)
