"""The edge: HTTP in, spool out. Nothing else may slow it down."""

from __future__ import annotations

import asyncio
import socket
import threading
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
        asyncio.create_task(_spool_controls(state, committer)),
        asyncio.create_task(_trim(settings, state, committer)),
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


async def _spool_controls(state: State, committer: Committer) -> None:
    """Append decisions of people (verdicts) to the spool, in the order they were made."""

    def waiting() -> list[Control]:
        with state.read() as session:
            query = select(Control).where(Control.spooled_at.is_(None)).order_by(Control.id).limit(100)
            return list(session.scalars(query))

    def done(ids: list[int]) -> None:
        with state.write() as session:
            for control in session.scalars(select(Control).where(Control.id.in_(ids))):
                control.spooled_at = now()

    while True:
        found = await asyncio.to_thread(waiting)
        for control in found:
            await committer.control(control.kind, {**control.payload, "id": control.id})
        if found:
            await asyncio.to_thread(done, [control.id for control in found])
        await asyncio.sleep(CONTROL_SECONDS)


async def _trim(settings: Settings, state: State, committer: Committer) -> None:
    """Remove sealed segments that are judged and stored, once the spool is a quarter full."""
    positions = Positions(state)
    while True:
        oldest = await asyncio.to_thread(positions.oldest, "detection", "store")
        if oldest is not None:
            await asyncio.to_thread(committer.trim, oldest, settings.spool.max_bytes // 4)
        await asyncio.sleep(TRIM_SECONDS)
