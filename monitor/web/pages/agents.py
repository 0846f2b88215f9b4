"""The inventory of agents, and the page of one."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from monitor.inventory import RISK_TIERS, Declaration, Inventory, InventoryError
from monitor.store.queries import Row
from monitor.web.agents import against, inventory, known_of, moment, stored_of
from monitor.web.auth import PageRead, PageTriage
from monitor.web.context import Console, InConsole
from monitor.web.pages.common import page
from monitor.web.problems import Problem

router = APIRouter(include_in_schema=False)

Tenant = Annotated[str, Query(max_length=200)]


@router.get("/agents")
async def agents(console: InConsole, caller: PageRead) -> HTMLResponse:
    """Every agent, seen or declared."""
    problem = ""
    try:
        seen = await console.readers.agents()
    except ClickHouseError:
        seen, problem = [], "The event store does not answer; only declared and alerted agents are shown."
    lines = await run_in_threadpool(_lines, console, seen)
    return page("agents.html", caller, lines=lines, problem=problem)


@router.get("/agents/{agent_id:path}")
async def agent(
    agent_id: str, console: InConsole, caller: PageRead, tenant: Tenant = "default"
) -> HTMLResponse:
    """One agent: who it is, what it uses, what is known of it, what it did."""
    return await _shown(console, caller, tenant, agent_id)


@router.post("/agents/{agent_id:path}")
async def declare(
    agent_id: str,
    console: InConsole,
    caller: PageTriage,
    owner: Annotated[str, Form(max_length=200)],
    risk_tier: Annotated[str, Form(max_length=20)],
    purpose: Annotated[str, Form(max_length=2000)] = "",
    tools: Annotated[str, Form(max_length=20_000)] = "",
    models: Annotated[str, Form(max_length=20_000)] = "",
    reason: Annotated[str, Form(max_length=2000)] = "",
    seen: Annotated[int | None, Form(ge=0, le=1 << 62)] = None,
    tenant: Tenant = "default",
) -> Response:
    """Declare the agent, or correct what was declared."""
    said = Declaration(owner, purpose, risk_tier, tuple(tools.split()), tuple(models.split()))
    declaring = Inventory(console.state).declare
    try:
        await run_in_threadpool(declaring, tenant, agent_id, said, caller.actor, reason, seen)
    except InventoryError as error:
        return await _shown(console, caller, tenant, agent_id, str(error))
    return RedirectResponse(str(agent_path(tenant, agent_id)), 303)


def agent_path(tenant: str, agent_id: str) -> str:
    """The address of an agent's page."""
    return f"/agents/{quote(agent_id, safe='')}?{urlencode({'tenant': tenant})}"


def _lines(console: Console, seen: list[Row]) -> Any:
    with console.state.read() as session:
        return inventory(session, seen, Inventory(console.state).all())


async def _shown(
    console: Console, caller: Any, tenant: str, agent_id: str, refused: str = ""
) -> HTMLResponse:
    stored = await stored_of(console.readers, tenant, agent_id)
    known = await run_in_threadpool(known_of, console.state, tenant, agent_id)
    if not (stored.tools or stored.versions or stored.sessions or stored.problem or any(known.values())):
        raise Problem(404, "nobody has seen or declared such an agent; the inventory lists those there are")
    declared = known["declared"]
    used = [row["tool_name"] for row in stored.tools]
    models = [row["value"] for row in stored.versions.get("model_id", ())]
    return page(
        "agent.html",
        caller,
        409 if refused else 200,
        tenant=tenant,
        agent_id=agent_id,
        stored=stored,
        undeclared_tools=against(declared.tools, used) if declared else [],
        undeclared_models=against(declared.models, models) if declared else [],
        risk_tiers=RISK_TIERS,
        refused=refused,
        at=moment,
        rule_name=console.rule_name,
        **known,
    )
