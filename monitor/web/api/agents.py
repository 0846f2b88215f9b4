"""The agents that were seen, over the API."""

from __future__ import annotations

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter

from monitor.web.api.models import AgentPage, AgentSeen
from monitor.web.auth import ApiRead
from monitor.web.context import InConsole
from monitor.web.problems import Problem

router = APIRouter(prefix="/api/v1/agents", tags=["agents"])


@router.get("")
async def list_agents(console: InConsole, caller: ApiRead) -> AgentPage:
    """Every agent of the stored history, busiest first."""
    try:
        rows = await console.readers.agents(caller.tenant)
    except ClickHouseError:
        raise Problem(503, "the event store does not answer; see the storing fault in status") from None
    return AgentPage(items=[AgentSeen.model_validate(row) for row in rows])
