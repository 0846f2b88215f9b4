"""Alerts over the API."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from monitor.alerting.alerts import AlertError
from monitor.store.state import Alert, AlertChange, AlertFinding, Order
from monitor.web.api.cursors import LATEST, after, cursor, version_of
from monitor.web.api.models import AlertDetail, AlertPage, AlertSummary, AnyStatus, Change, Level
from monitor.web.auth import ApiRead, ApiTriage, Caller, note_reading
from monitor.web.changes import Wanted, change_act
from monitor.web.context import InConsole
from monitor.web.problems import Problem

router = APIRouter(prefix="/api/v1/alerts", tags=["alerts"])


@router.get("")
def list_alerts(
    console: InConsole,
    caller: ApiRead,
    status: Annotated[list[AnyStatus] | None, Query()] = None,
    level: Annotated[list[Level] | None, Query()] = None,
    agent: Annotated[list[str] | None, Query()] = None,
    rule: Annotated[list[str] | None, Query()] = None,
    session: str | None = None,
    created_after: Annotated[
        int | None, Query(description="microseconds since the epoch", ge=0, le=LATEST)
    ] = None,
    after_cursor: Annotated[str | None, Query(alias="cursor", max_length=300)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> AlertPage:
    """Alerts, newest first; every status unless some are named."""
    chosen = {Alert.status: status, Alert.level: level, Alert.agent_id: agent, Alert.rule_id: rule}
    wanted: list[ColumnElement[bool]] = [column.in_(values) for column, values in chosen.items() if values]
    if caller.tenant is not None:
        wanted.append(Alert.tenant == caller.tenant)
    if session is not None:
        wanted.append(Alert.session_id == session)
    if created_after is not None:
        wanted.append(Alert.created_at > created_after)
    if after_cursor is not None:
        wanted.append(after(after_cursor, Alert.created_at, Alert.id))
    query = select(Alert).where(and_(True, *wanted))
    with console.state.read() as db:
        found = db.scalars(query.order_by(Alert.created_at.desc(), Alert.id.desc()).limit(limit + 1)).all()
    shown = found[:limit]
    more = cursor(shown[-1].created_at, shown[-1].id) if len(found) > limit else None
    return AlertPage(items=[AlertSummary.model_validate(alert) for alert in shown], next_cursor=more)


@router.get("/{alert_id}")
def get_alert(alert_id: str, console: InConsole, caller: ApiRead, response: Response) -> AlertDetail:
    """One alert with history, findings and orders. The ETag is its version, for ``If-Match``."""
    with console.state.read() as db:
        answer = _detail(db, visible(db, alert_id, caller))
    note_reading(console, caller, f"alert:{alert_id}")
    response.headers["ETag"] = f'"{answer.version}"'
    return answer


@router.post("/{alert_id}/changes")
def change_alert(
    alert_id: str,
    change: Change,
    console: InConsole,
    caller: ApiTriage,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> AlertDetail:
    """Change an alert: 409 where its status forbids it, or where ``expected_version`` is out of date;
    412 where ``If-Match`` is.
    """
    with console.state.write() as db:
        alert = visible(db, alert_id, caller)
        _check_version(alert, change.expected_version, if_match)
        try:
            console.alert_desk.change(
                db,
                alert_id,
                caller.actor,
                status=change.status,
                verdict=change.verdict,
                owner=change.owner,
                reason=change.reason.strip(),
                expected_version=change.expected_version,
            )
        except AlertError as error:
            raise Problem(409, str(error)) from None
        wanted = Wanted(change.status, change.verdict, change.owner, change.reason.strip())
        db.add(change_act(caller, alert_id, wanted))
        db.flush()
        answer = _detail(db, alert)
    console.alert_desk.wake()
    response.headers["ETag"] = f'"{answer.version}"'
    return answer


def visible(db: Session, alert_id: str, caller: Caller) -> Alert:
    """The alert, where the caller's tenant may see it. Raises Problem 404."""
    alert = db.get(Alert, alert_id)
    if alert is None or caller.tenant not in (None, alert.tenant):
        raise Problem(404, "there is no such alert; GET /api/v1/alerts lists them")
    return alert


def _check_version(alert: Alert, expected: int | None, if_match: str | None) -> None:
    if version_of(if_match) not in (None, alert.version):
        raise Problem(412, f"the alert is at version {alert.version} now; read it again, then decide")
    if expected is not None and expected != alert.version:
        raise Problem(409, f"the alert is at version {alert.version} now; read it again, then decide")


def _detail(db: Session, alert: Alert) -> AlertDetail:
    changes = select(AlertChange).where(AlertChange.alert_id == alert.id).order_by(AlertChange.id)
    findings = select(AlertFinding).where(AlertFinding.alert_id == alert.id).order_by(AlertFinding.at)
    orders = select(Order).where(Order.alert_id == alert.id).order_by(Order.created_at)
    return AlertDetail.of(
        alert,
        list(db.scalars(changes.limit(1000))),
        list(db.scalars(findings.limit(1000))),
        list(db.scalars(orders.limit(100))),
    )
