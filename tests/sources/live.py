"""A live edge: a real HTTP server over a real committer and spool."""

from __future__ import annotations

import socket
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import uvloop

from monitor.frames import from_bytes
from monitor.pipeline import Intake
from monitor.processes.common import web_server
from monitor.processes.connections import Limits
from monitor.settings import EdgeSettings, Settings
from monitor.sources.commit import Committer
from monitor.sources.deadletters import DeadLetter, DeadLetters
from monitor.sources.deadreader import newest
from monitor.sources.gate import Gate
from monitor.sources.http import edge_app
from monitor.sources.keys import Keys
from monitor.sources.seen import Seen
from monitor.sources.spool import Entry, SpoolReader, SpoolWriter
from monitor.store.migrate import migrate_state
from monitor.store.state import State
from tests.daemons import until


def stored_events(folder: Path) -> list[dict[str, Any]]:
    """Every event in the spool, in order, None columns left out."""
    reader = SpoolReader(folder)
    payloads = []
    while records := reader.read():
        payloads += [record.payload for record in records if record.kind is Entry.EVENTS]
    rows = from_bytes(payloads).to_pylist(maps_as_pydicts="strict")
    return [{name: value for name, value in row.items() if value not in (None, [], {})} for row in rows]


class LiveEdge:
    """The edge as its own server thread; ``key`` has the scope ingest."""

    def __init__(self, data: Path, **limits: Any) -> None:
        spool = limits.pop("spool", {})
        self.settings = Settings(data=data, edge=EdgeSettings(**limits), spool=spool)
        self.data = data
        data.mkdir(exist_ok=True)
        migrate_state(self.settings.state_file)
        self.state = State(self.settings.state_file)
        self.keys = Keys(self.state)
        self.key_id, self.key = self.keys.create("tests")
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()))
        self._thread.start()
        until(lambda: self._started.is_set() and self._server.started, "the edge listens")
        self.client = httpx.Client(base_url=self.url, timeout=30)

    async def _serve(self) -> None:
        writer = SpoolWriter(self.settings.spool_folder, self.settings.spool.seal_bytes)
        self.writer = writer
        self.dead = DeadLetters(self.data / "dead-letters")
        self.committer = Committer(writer, Seen.load(self.settings.spool_folder), self.dead, self.settings)
        self.committer.start()
        intake = Intake(Gate(self.settings.edge), self.committer)
        app = edge_app(intake, self.keys, self.settings, self.committer.health)
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self._server = web_server(app, drain_seconds=5, limits=Limits.of(self.settings.edge))
        self._started.set()
        await self._server.serve(sockets=[listening])
        await self.committer.drain()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join()
        self.state.close()

    def post(
        self, body: Any, path: str = "/v1/events", key: str | None = None, **headers: str
    ) -> httpx.Response:
        """POST a body with the key; header names with underscores for dashes."""
        sent = {"Authorization": f"Bearer {key or self.key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, content=body, headers=sent)

    def controls(self) -> list[bytes]:
        """Every control in the spool, in order."""
        reader = SpoolReader(self.settings.spool_folder)
        return [record.payload for record in reader.read() if record.kind is Entry.CONTROL]

    def letters(self, n: int) -> list[DeadLetter]:
        """The newest ``n`` dead letters, oldest of them first."""
        return [kept.letter for kept in islice(newest(self.dead.folder), n)][::-1]

    def stored(self) -> list[dict[str, Any]]:
        return stored_events(self.settings.spool_folder)
