"""The edge: HTTP in, spool out. Nothing else may slow it down."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import uvloop
from sqlalchemy import select

from monitor.pipeline import Intake
from monitor.processes.common import Server, begin, show_life, web_server
from monitor.processes.connections import Limits
from monitor.settings import Settings
from monitor.sources.admission import Busy
from monitor.sources.callers import Callers
from monitor.sources.commit import Committer
from monitor.sources.deadletters import DeadLetters
from monitor.sources.gate import Gate
from monitor.sources.http import edge_app
from monitor.sources.keys import Keys
from monitor.sources.recall import recall
from monitor.sources.redaction.redactor import Redactor
from monitor.sources.seen import Seen
from monitor.sources.spool import SpoolWriter
from monitor.sources.trace_memory import TraceMemory
from monitor.store.heartbeat import former_callers
from monitor.store.positions import Positions
from monitor.store.state import Control, State, now
from monitor.telemetry import logger

CONTROL_SECONDS = 0.5
TRIM_SECONDS = 2.0

SPARE_FILES = 100
"""Files that the edge has open beside its connections: spool, state database, log and the like."""


def run(settings: Settings, sock: socket.socket, rules_hash: str) -> None:
    """Process entry: serve until told to end, then answer what is waiting and seal the spool."""
    stop = begin(settings, "edge")
    uvloop.run(_serve(settings, sock, rules_hash, stop))


async def _serve(settings: Settings, sock: socket.socket, rules_hash: str, stop: threading.Event) -> None:
    state = State(settings.state_file)
    writer = SpoolWriter(settings.spool_folder, settings.spool.seal_bytes, Positions(state).furthest())
    seen = Seen.load(settings.spool_folder, settings.edge.remembered_events)
    dead = DeadLetters(settings.dead_letters_folder, settings.edge.max_dead_letter_bytes)
    committer = Committer(writer, seen, dead, settings)
    if writer.cut:
        logger().warning("a torn end of the spool was cut off; it was never answered", bytes=writer.cut)
    committer.begin_with("rules", {"hash": rules_hash})
    committer.start()
    callers = Callers(settings.own_alerts.silent_agents)
    callers.resume(former_callers(state))
    traces = TraceMemory(settings.edge.max_trace_spans, max_name_bytes=settings.edge.max_name_bytes)
    policies = settings.redaction.policies
    redactor = Redactor(settings.redaction, settings.redaction_key) if policies else None
    intake = Intake(Gate(settings.edge, redactor=redactor), committer, callers, traces)
    recall(intake.late, settings.spool_folder)
    keys = Keys(state)
    app = edge_app(intake, keys, settings, ready=committer.health)
    server = web_server(app, drain_seconds=5, limits=Limits.of(settings.edge))
    _allow_files(settings.edge.max_connections)

    def vitals() -> tuple[dict[str, float], dict[str, Any]]:
        connections = {f"edge_{name}": value for name, value in server.guard.metrics().items()}
        detail = {
            "fault": committer.health()["fault"],
            "dead_letters": dead.count(),
            "pressure": committer.pressure(),
            "cut_bytes": writer.cut,
            "callers": callers.told(),
        }
        return committer.metrics() | traces.metrics() | connections, detail

    show_life(state, "edge", vitals, stop)
    chores = [
        asyncio.create_task(
            _again(partial(_spool_controls, state, committer), "decisions into the spool", CONTROL_SECONDS)
        ),
        asyncio.create_task(
            _again(partial(_trim, Positions(state), committer), "trimming the spool", TRIM_SECONDS)
        ),
        asyncio.create_task(_end(server, stop)),
    ]
    await server.serve(sockets=[sock])
    for chore in chores:
        chore.cancel()
    await committer.drain()
    state.close()


def _allow_files(connections: int) -> None:
    """Let this process hold so many connections at once, or say that it may not."""
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < needed:
            logger().warning(
                "this process may not open as many files as edge.max_connections needs; "
                "raise its limit (ulimit -n, LimitNOFILE) or lower the setting",
                needed=needed,
                allowed=allowed,
            )


async def _end(server: Server, stop: threading.Event) -> None:
    await asyncio.to_thread(stop.wait)
    server.should_exit = True


async def _again(chore: Callable[[], Awaitable[None]], what: str, every_seconds: float) -> None:
    """Do a chore again and again; a fault is logged, and the next turn comes all the same."""
    while True:
        try:
            await chore()
        except Busy as busy:
            logger().warning("a chore of the edge waits for the disk", chore=what, why=busy.reason)
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


async def _trim(positions: Positions, committer: Committer) -> None:
    """Remove sealed segments that are judged and stored, beyond what is worth keeping."""
    if committer.room.bytes <= committer.room.worth_keeping:
        return
    oldest = await asyncio.to_thread(positions.oldest, "detection", "store")
    if oldest is not None:
        await asyncio.to_thread(committer.room.trim, oldest, committer.room.worth_keeping)
