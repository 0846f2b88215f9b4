"""Kill-switch orders over the API."""

from __future__ import annotations

from typing import Annotated

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter, Query, Response
from sqlalchemy import ColumnElement, and_, select
from starlette.concurrency import run_in_threadpool

from monitor.response.states import OrderError
from monitor.store.state import Alert, Order, OrderChange
from monitor.web.api.alerts import visible
from monitor.web.api.cursors import after, cursor
from monitor.web.api.models import NewOrder, OrderDetail, OrderPage, OrderSummary
from monitor.web.auth import Caller, MayOperate, MayRead
from monitor.web.context import Console, InConsole
from monitor.web.problems import Problem

router = APIRouter(prefix="/api/v1/orders", tags=["orders"])

SESSION_EVENTS = 1000


@router.get("")
def list_orders(
    console: InConsole,
    caller: MayRead,
    state: Annotated[list[str] | None, Query()] = None,
    agent: Annotated[list[str] | None, Query()] = None,
    after_cursor: Annotated[str | None, Query(alias="cursor", max_length=300)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> OrderPage:
    """Orders, newest first."""
    wanted: list[ColumnElement[bool]] = []
    if state:
        wanted.append(Order.state.in_(state))
    if agent:
        wanted.append(Order.agent_id.in_(agent))
    if caller.tenant is not None:
        wanted.append(Order.tenant == caller.tenant)
    if after_cursor is not None:
        wanted.append(after(after_cursor, Order.created_at, Order.request_id))
    query = select(Order).where(and_(True, *wanted))
    newest = query.order_by(Order.created_at.desc(), Order.request_id.desc())
    with console.state.read() as db:
        found = db.scalars(newest.limit(limit + 1)).all()
    shown = found[:limit]
    more = cursor(shown[-1].created_at, shown[-1].request_id) if len(found) > limit else None
    return OrderPage(items=[OrderSummary.model_validate(order) for order in shown], next_cursor=more)


@router.get("/{request_id}")
def get_order(request_id: str, console: InConsole, caller: MayRead) -> OrderDetail:
    """One order with its transitions and the time of each stage."""
    with console.state.read() as db:
        order = db.get(Order, request_id)
        if order is None or caller.tenant not in (None, order.tenant):
            raise Problem(404, "there is no such order; GET /api/v1/orders lists them")
        changes = select(OrderChange).where(OrderChange.request_id == request_id).order_by(OrderChange.id)
        return OrderDetail.of(order, list(db.scalars(changes)))


@router.post("", status_code=201)
async def make_order(
    wanted: NewOrder, console: InConsole, caller: MayOperate, response: Response
) -> OrderSummary:
    """Order a stop. Where the same target is already being stopped, that order is answered."""
    tenant = wanted.tenant or caller.tenant or "default"
    if caller.tenant not in (None, tenant):
        raise Problem(403, "the key belongs to another tenant")
    agent_id = wanted.agent_id or await _agent_of(console, tenant, wanted.session_id or "")
    answer = await run_in_threadpool(_order, console, caller, wanted, tenant, agent_id)
    response.headers["Location"] = f"/api/v1/orders/{answer.request_id}"
    return answer


def _order(console: Console, caller: Caller, wanted: NewOrder, tenant: str, agent_id: str) -> OrderSummary:
    with console.state.write() as db:
        if wanted.alert_id is not None:
            visible(db, wanted.alert_id, caller)
        try:
            order = console.order_desk.request(
                db,
                action=wanted.action,
                scope=wanted.scope,
                agent_id=agent_id,
                session_id=wanted.session_id,
                tenant=tenant,
                reason=wanted.reason,
                actor=caller.actor,
                alert_id=wanted.alert_id,
            )
        except OrderError as error:
            raise Problem(422, str(error)) from None
        db.flush()
        answer = OrderSummary.model_validate(order)
    console.order_desk.wake()
    return answer


async def _agent_of(console: Console, tenant: str, session_id: str) -> str:
    """The agent of a session, by its alerts or else its events. Raises Problem 422 where nobody knows it."""
    agents = await run_in_threadpool(_alerted_agents, console, tenant, session_id)
    if not agents:
        try:
            events = await console.readers.session_events(tenant, session_id, SESSION_EVENTS)
        except ClickHouseError:
            raise Problem(503, "the event store does not answer; name agent_id too") from None
        agents = sorted({event["agent_id"] for event in events if event["identity"] != "provisional"})
    if len(agents) != 1:
        known = f"agents {', '.join(map(repr, agents[:5]))}" if agents else "no agent that has sent events"
        raise Problem(422, f"the session belongs to {known}; name agent_id too")
    return agents[0]


def _alerted_agents(console: Console, tenant: str, session_id: str) -> list[str]:
    query = select(Alert.agent_id).where(Alert.tenant == tenant, Alert.session_id == session_id)
    named = query.where(Alert.identity != "provisional").distinct().order_by(Alert.agent_id)
    with console.state.read() as db:
        return list(db.scalars(named))
