"""Agents over the API: seen, declared, and what is known of one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from monitor.inventory import Declaration, Inventory, InventoryError, StaleDeclarationError, plain
from monitor.web.agents import known_of, stored_of
from monitor.web.api.cursors import version_of
from monitor.web.api.models import AgentPage, AgentSeen, AlertSummary
from monitor.web.auth import ApiRead, ApiTriage, Caller
from monitor.web.context import InConsole
from monitor.web.problems import Problem

router = APIRouter(prefix="/api/v1", tags=["agents"])

AgentId = Annotated[str, Path(min_length=1, max_length=512)]
Tenant = Annotated[str, Query(min_length=1, max_length=200)]
Name = Annotated[str, Field(min_length=1, max_length=300)]


class AgentDeclared(BaseModel):
    """A declaration; ``declared_at`` in microseconds since the epoch."""

    tenant: str
    agent_id: str
    owner: str
    purpose: str
    risk_tier: str
    tools: list[str]
    models: list[str]
    declared_by: str
    declared_at: int


class DeclaredPage(BaseModel):
    """Every declaration, by tenant and agent."""

    items: list[AgentDeclared]


class AgentDetail(BaseModel):
    """One agent: its declaration, what it uses and used, what is known of it and what it did.

    ``baselines`` are sessions learned, by detector; ``risk_by_day`` covers thirty days, oldest first.
    """

    tenant: str
    agent_id: str
    state: str
    declared: AgentDeclared | None
    versions: dict[str, list[dict[str, Any]]]
    tools: list[dict[str, Any]]
    sessions: list[dict[str, Any]]
    baselines: dict[str, int]
    risk_by_day: list[float]
    alerts: list[AlertSummary]


class NewDeclaration(BaseModel):
    """What is to be said of an agent."""

    model_config = ConfigDict(extra="forbid")

    owner: str = Field(min_length=1, max_length=200)
    purpose: str = Field("", max_length=2000)
    risk_tier: Literal["low", "medium", "high"] = "medium"
    tools: list[Name] = Field(default_factory=list, max_length=1000)
    models: list[Name] = Field(default_factory=list, max_length=1000)
    reason: str = Field("", max_length=2000)


@router.get("/agents")
async def list_agents(console: InConsole, caller: ApiRead) -> AgentPage:
    """Every agent of the stored history, busiest first."""
    try:
        rows = await console.readers.agents(caller.tenant)
    except ClickHouseError:
        raise Problem(503, "the event store does not answer; see the storing fault in status") from None
    return AgentPage(items=[AgentSeen.model_validate(row) for row in rows])


@router.get("/declared-agents")
def list_declared(console: InConsole, caller: ApiRead) -> DeclaredPage:
    """Every agent that was declared."""
    found = Inventory(console.state).all(caller.tenant)
    return DeclaredPage(items=[AgentDeclared(**plain(one)) for one in found])


@router.get("/agents/{agent_id:path}")
async def get_agent(
    agent_id: AgentId, console: InConsole, caller: ApiRead, tenant: Tenant = "default"
) -> AgentDetail:
    """All that is known of one agent: 404 where nobody has seen, declared or stopped it."""
    _own(caller, tenant)
    stored, known = (
        await stored_of(console.readers, tenant, agent_id),
        known_of(console.state, tenant, agent_id),
    )
    if stored.problem:
        raise Problem(503, stored.problem)
    if not (stored.tools or stored.versions or stored.sessions or any(known.values())):
        raise Problem(
            404, "nobody has seen or declared such an agent; GET /api/v1/agents lists those there are"
        )
    declared, days = known["declared"], known["days"]
    return AgentDetail(
        tenant=tenant,
        agent_id=agent_id,
        state=known["state"] or "running",
        declared=AgentDeclared(**plain(declared)) if declared is not None else None,
        versions=stored.versions,
        tools=stored.tools,
        sessions=stored.sessions,
        baselines=dict(known["baselines"]["detectors"]) if known["baselines"] else {},
        risk_by_day=list(days.risks) if days is not None else [],
        alerts=[AlertSummary.model_validate(alert) for alert in known["alerts"]],
    )


@router.get("/declared-agents/{agent_id:path}")
def get_declared(
    agent_id: AgentId, console: InConsole, caller: ApiRead, response: Response, tenant: Tenant = "default"
) -> AgentDeclared:
    """One declaration. The ETag is for ``If-Match``."""
    _own(caller, tenant)
    found = Inventory(console.state).find(tenant, agent_id)
    if found is None:
        raise Problem(404, "no such agent is declared")
    response.headers["ETag"] = f'"{found.declared_at}"'
    return AgentDeclared(**plain(found))


@router.put("/declared-agents/{agent_id:path}")
def declare(
    agent_id: AgentId,
    said: NewDeclaration,
    console: InConsole,
    caller: ApiTriage,
    response: Response,
    tenant: Tenant = "default",
    if_match: Annotated[str | None, Header()] = None,
) -> AgentDeclared:
    """Declare an agent, in place of what was said before: 422 where that cannot be, 412 where
    ``If-Match`` is out of date.
    """
    _own(caller, tenant)
    inventory = Inventory(console.state)
    wanted = Declaration(said.owner, said.purpose, said.risk_tier, tuple(said.tools), tuple(said.models))
    try:
        inventory.declare(tenant, agent_id, wanted, caller.actor, said.reason, version_of(if_match))
    except StaleDeclarationError as error:
        raise Problem(412, str(error)) from None
    except InventoryError as error:
        raise Problem(422, str(error)) from None
    found = inventory.find(tenant, agent_id)
    assert found is not None
    response.headers["ETag"] = f'"{found.declared_at}"'
    return AgentDeclared(**plain(found))


@router.delete("/declared-agents/{agent_id:path}", status_code=204)
def withdraw(
    agent_id: AgentId,
    console: InConsole,
    caller: ApiTriage,
    tenant: Tenant = "default",
    reason: Annotated[str, Query(max_length=2000)] = "",
) -> None:
    """Take a declaration back: 404 where there is none."""
    _own(caller, tenant)
    try:
        Inventory(console.state).withdraw(tenant, agent_id, caller.actor, reason)
    except InventoryError as error:
        raise Problem(404, str(error)) from None


def _own(caller: Caller, tenant: str) -> None:
    if caller.tenant not in (None, tenant):
        raise Problem(403, "the key belongs to another tenant")
