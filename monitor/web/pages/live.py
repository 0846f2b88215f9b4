"""Server-sent events that say only that something changed; the page then asks with its own filters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
from fastapi import APIRouter
from sqlalchemy import func, literal_column, select
from starlette.responses import StreamingResponse

from monitor.store.state import Alert, AlertChange, AlertFinding, OrderChange, State, now
from monitor.web.auth import PageRead
from monitor.web.context import InConsole

router = APIRouter(include_in_schema=False)

LOOK_SECONDS = 0.4
PING_SECONDS = 15.0
LONGEST_SECONDS = 600.0
"""The browser then connects again by itself, and shows its session anew."""


@router.get("/alerts/stream")
def stream(console: InConsole, caller: PageRead) -> StreamingResponse:
    """An endless stream of ``change`` events, at most one per ``LOOK_SECONDS``."""
    return StreamingResponse(_changes(console.state, caller.expires_at or 0), media_type="text/event-stream")


async def _changes(state: State, expires_at: int) -> AsyncIterator[bytes]:
    known = await anyio.to_thread.run_sync(_fingerprint, state)
    begun = quiet_since = anyio.current_time()
    # The first event makes up for what changed between drawing the page and connecting.
    yield b"retry: 2000\nevent: change\ndata: {}\n\n"
    while anyio.current_time() - begun < LONGEST_SECONDS and now() < expires_at:
        await anyio.sleep(LOOK_SECONDS)
        current = await anyio.to_thread.run_sync(_fingerprint, state)
        if current != known:
            known, quiet_since = current, anyio.current_time()
            yield b"event: change\ndata: {}\n\n"
        elif anyio.current_time() - quiet_since > PING_SECONDS:
            quiet_since = anyio.current_time()
            yield b": still here\n\n"


def _fingerprint(state: State) -> tuple[Any, ...]:
    with state.read() as session:
        return tuple(
            session.execute(
                select(
                    select(func.count()).select_from(Alert).scalar_subquery(),
                    # every finding that opens or joins an alert is a row; its number needs no scan
                    select(func.max(literal_column("rowid"))).select_from(AlertFinding).scalar_subquery(),
                    select(func.max(AlertChange.id)).scalar_subquery(),
                    select(func.max(OrderChange.id)).scalar_subquery(),
                )
            ).one()
        )
