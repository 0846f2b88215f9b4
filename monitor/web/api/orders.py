"""Kill-switch orders over the API."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter, Query, Response
from sqlalchemy import ColumnElement, and_, select
from starlette.concurrency import run_in_threadpool

from monitor.response.states import OrderError
from monitor.store.state import Alert, Order, OrderChange
from monitor.web.api.alerts import visible
from monitor.web.api.cursors import after, cursor
from monitor.web.api.models import NewOrder, OrderDetail, OrderPage, OrderSummary
from monitor.web.auth import ApiRead, ApiRespond, Caller
from monitor.web.context import Console, InConsole
from monitor.web.problems import Problem

router = APIRouter(prefix="/api/v1/orders", tags=["orders"])

MAX_KNOWN = 1000
"""Targets looked at to find the one that is meant."""

KNOWN_DAYS = 30
"""How far back events tell where a target runs."""


class Target(NamedTuple):
    """What an order is about."""

    tenant: str
    agent_id: str
    environment: str | None


@router.get("")
def list_orders(
    console: InConsole,
    caller: ApiRead,
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
def get_order(request_id: str, console: InConsole, caller: ApiRead) -> OrderDetail:
    """One order with its transitions and the time of each stage."""
    with console.state.read() as db:
        order = db.get(Order, request_id)
        if order is None or caller.tenant not in (None, order.tenant):
            raise Problem(404, "there is no such order; GET /api/v1/orders lists them")
        changes = select(OrderChange).where(OrderChange.request_id == request_id).order_by(OrderChange.id)
        return OrderDetail.of(order, list(db.scalars(changes)))


@router.post("", status_code=201)
async def make_order(
    wanted: NewOrder, console: InConsole, caller: ApiRespond, response: Response
) -> OrderSummary:
    """Order a stop. Where the same target is already being stopped, that order is answered."""
    if caller.tenant is not None and wanted.tenant not in (None, caller.tenant):
        raise Problem(403, "the key belongs to another tenant")
    target = await _target(console, wanted, wanted.tenant or caller.tenant)
    answer = await run_in_threadpool(_order, console, caller, wanted, target)
    response.headers["Location"] = f"/api/v1/orders/{answer.request_id}"
    return answer


def _order(console: Console, caller: Caller, wanted: NewOrder, target: Target) -> OrderSummary:
    with console.state.write() as db:
        if wanted.alert_id is not None:
            visible(db, wanted.alert_id, caller)
        try:
            order = console.order_desk.request(
                db,
                action=wanted.action,
                scope=wanted.scope,
                agent_id=target.agent_id,
                session_id=wanted.session_id,
                tenant=target.tenant,
                environment=target.environment,
                reason=wanted.reason,
                actor=caller.actor,
                alert_id=wanted.alert_id,
            )
        except OrderError as error:
            raise Problem(422, str(error)) from None
        target_of = {"agent": target.agent_id, "action": wanted.action, "scope": wanted.scope}
        db.add(caller.act("order.create", f"order:{order.request_id}", wanted.reason, target_of))
        db.flush()
        answer = OrderSummary.model_validate(order)
    console.order_desk.wake()
    return answer


async def _target(console: Console, wanted: NewOrder, tenant: str | None) -> Target:
    """The target, with what the request leaves out taken from its alerts and events.

    Raises Problem 422 where they name several, or no agent at all. An environment that
    nobody knows stays None: such an order goes to the endpoints of every environment.
    """
    if tenant and wanted.agent_id and wanted.environment:
        return Target(tenant, wanted.agent_id, wanted.environment)
    known = await run_in_threadpool(_by_alerts, console, wanted, tenant)
    try:
        known |= await _by_events(console, wanted, tenant)
    except ClickHouseError:
        if not known and wanted.agent_id is None:
            raise Problem(503, "the event store does not answer; name agent_id too") from None
    found_tenant = tenant or _only(known, "tenant", wanted) or "default"
    known = {target for target in known if target.tenant == found_tenant}
    agent_id = wanted.agent_id or _only(known, "agent_id", wanted)
    if agent_id is None:
        raise Problem(422, "no agent that has sent events is known for this session; name agent_id too")
    known = {target for target in known if target.agent_id == agent_id}
    return Target(found_tenant, agent_id, wanted.environment or _only(known, "environment", wanted))


def _only(known: set[Target], field: str, wanted: NewOrder) -> str | None:
    """The one value of ``field`` that is known; None where none is. Raises Problem 422 at several."""
    values = sorted({value for target in known if (value := getattr(target, field)) is not None})
    if len(values) > 1:
        named = ", ".join(map(repr, values[:5]))
        raise Problem(422, f"the {wanted.scope} is known with {field} {named}; name {field} too")
    return values[0] if values else None


def _by_alerts(console: Console, wanted: NewOrder, tenant: str | None) -> set[Target]:
    query = select(Alert.tenant, Alert.agent_id, Alert.environment).where(Alert.identity != "provisional")
    if wanted.scope == "session":
        query = query.where(Alert.session_id == wanted.session_id)
    if wanted.agent_id is not None:
        query = query.where(Alert.agent_id == wanted.agent_id)
    if tenant is not None:
        query = query.where(Alert.tenant == tenant)
    with console.state.read() as db:
        return {Target(*row) for row in db.execute(query.distinct().limit(MAX_KNOWN))}


async def _by_events(console: Console, wanted: NewOrder, tenant: str | None) -> set[Target]:
    given = {
        "session_id": wanted.session_id if wanted.scope == "session" else None,
        "agent_id": wanted.agent_id,
        "tenant": tenant,
    }
    named = {column: value for column, value in given.items() if value is not None}
    where = " AND ".join(f"{column} = {{{column}:String}}" for column in named)
    rows = await console.readers.select(
        "SELECT DISTINCT tenant, agent_id, environment FROM events "  # noqa: S608 - names of columns only
        f"WHERE {where} AND coalesce(ingested_at, timestamp) > now() - INTERVAL {KNOWN_DAYS} DAY "
        f"AND ifNull(identity, '') != 'provisional' LIMIT {MAX_KNOWN}",
        named,
    )
    return {Target(row["tenant"], row["agent_id"], row["environment"]) for row in rows}
