"""Agents over the API: seen, declared, and what is known of one."""

from __future__ import annotations

from typing import Annotated, Literal

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from monitor.inventory import Declaration, Inventory, InventoryError, plain
from monitor.web.api.models import AgentPage, AgentSeen
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


@router.put("/declared-agents/{agent_id}")
def declare(
    agent_id: AgentId, said: NewDeclaration, console: InConsole, caller: ApiTriage, tenant: Tenant = "default"
) -> AgentDeclared:
    """Declare an agent, in place of what was said before: 422 where that cannot be."""
    _own(caller, tenant)
    inventory = Inventory(console.state)
    wanted = Declaration(said.owner, said.purpose, said.risk_tier, tuple(said.tools), tuple(said.models))
    try:
        inventory.declare(tenant, agent_id, wanted, caller.actor, said.reason)
    except InventoryError as error:
        raise Problem(422, str(error)) from None
    found = inventory.find(tenant, agent_id)
    assert found is not None
    return AgentDeclared(**plain(found))


@router.delete("/declared-agents/{agent_id}", status_code=204)
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
