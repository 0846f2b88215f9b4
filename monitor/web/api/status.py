"""The daemon's state over the API."""

from __future__ import annotations

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from monitor.web.api.models import DaemonStatus
from monitor.web.auth import ApiRead
from monitor.web.context import Console, InConsole
from monitor.web.pulse import Pulse, pulse

router = APIRouter(prefix="/api/v1", tags=["status"])


@router.get("/status")
async def status(console: InConsole, _caller: ApiRead) -> DaemonStatus:
    """Processes, queues, and how many events are stored."""
    seen = await run_in_threadpool(_pulse, console)
    try:
        stored: int | None = await console.readers.count()
    except ClickHouseError:
        stored = None
    return DaemonStatus.of(seen, stored)


def _pulse(console: Console) -> Pulse:
    with console.state.read() as db:
        return pulse(db)
