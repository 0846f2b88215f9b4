"""The edge: HTTP in, spool out. Nothing else may slow it down."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from sqlalchemy import select

from monitor.pipeline import Intake
from monitor.processes.common import Server, begin, show_life, web_server
from monitor.settings import Settings
from monitor.sources.commit import Committer
from monitor.sources.deadletters import DeadLetters
from monitor.sources.gate import Gate
from monitor.sources.http import edge_app
from monitor.sources.keys import Keys
from monitor.sources.seen import Seen
from monitor.sources.spool import SpoolWriter
from monitor.store.positions import Positions
from monitor.store.state import Control, State, now
from monitor.telemetry import logger

CONTROL_SECONDS = 0.5
TRIM_SECONDS = 30.0


def run(settings: Settings, sock: socket.socket, rules_hash: str) -> None:
    """Process entry: serve until told to end, then answer what is waiting and seal the spool."""
    stop = begin(settings, "edge")
    asyncio.run(_serve(settings, sock, rules_hash, stop))


async def _serve(settings: Settings, sock: socket.socket, rules_hash: str, stop: threading.Event) -> None:
    state = State(settings.state_file)
    writer = SpoolWriter(settings.spool_folder, settings.spool.seal_bytes)
    seen = Seen.load(settings.spool_folder)
    dead = DeadLetters(settings.data / "dead-letters")
    committer = Committer(writer, seen, dead, settings)
    committer.start()
    await committer.control("rules", {"hash": rules_hash})
    intake = Intake(Gate(settings.edge), committer)
    keys = Keys(state)
    app = edge_app(intake, keys, settings, ready=committer.health)
    server = web_server(app, drain_seconds=5)

    def vitals() -> tuple[dict[str, float], dict[str, Any]]:
        return committer.metrics(), {"dead_letters": dead.count()}

    show_life(state, "edge", vitals, stop)
    chores = [
        asyncio.create_task(
            _again(partial(_spool_controls, state, committer), "decisions into the spool", CONTROL_SECONDS)
        ),
        asyncio.create_task(
            _again(partial(_trim, settings, Positions(state), committer), "trimming the spool", TRIM_SECONDS)
        ),
        asyncio.create_task(_end(server, stop)),
    ]
    await server.serve(sockets=[sock])
    for chore in chores:
        chore.cancel()
    await committer.drain()
    state.close()


async def _end(server: Server, stop: threading.Event) -> None:
    await asyncio.to_thread(stop.wait)
    server.should_exit = True


async def _again(chore: Callable[[], Awaitable[None]], what: str, every_seconds: float) -> None:
    """Do a chore again and again; a fault is logged, and the next turn comes all the same."""
    while True:
        try:
            await chore()
        except Exception:
            logger().exception("a chore of the edge failed and will be tried again", chore=what)
        await asyncio.sleep(every_seconds)


async def _spool_controls(state: State, committer: Committer) -> None:
    """Append decisions of people (verdicts) to the spool, in the order they were made."""

    def waiting() -> list[Control]:
        with state.read() as session:
            query = select(Control).where(Control.spooled_at.is_(None)).order_by(Control.id).limit(100)
            return list(session.scalars(query))

    def done(control_id: int) -> None:
        with state.write() as session:
            session.get_one(Control, control_id).spooled_at = now()

    for control in await asyncio.to_thread(waiting):
        await committer.control(control.kind, {**control.payload, "id": control.id})
        await asyncio.to_thread(done, control.id)


async def _trim(settings: Settings, positions: Positions, committer: Committer) -> None:
    """Remove sealed segments that are judged and stored, once the spool is a quarter full."""
    oldest = await asyncio.to_thread(positions.oldest, "detection", "store")
    if oldest is not None:
        await asyncio.to_thread(committer.trim, oldest, settings.spool.max_bytes // 4)
