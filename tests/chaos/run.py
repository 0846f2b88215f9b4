"""One data folder on which a daemon lives through many kills, under load, and what is left then."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from monitor.response.states import IN_FLIGHT
from monitor.sources.keys import Keys
from monitor.sources.segment import segments
from monitor.store.state import State
from tests.chaos.archive import Archive
from tests.chaos.judgement import held
from tests.chaos.kills import free_port, kill_once, plan
from tests.chaos.senders import Sender
from tests.chaos.site import Site, site
from tests.daemons import Daemon, until
from tests.response.responders import SECRET

SENDERS = 3
SPEAKS_EVERY = 0.5
SETTINGS = """
[spool]
max_bytes = 60000000
seal_bytes = 150000
seal_seconds = 0.1
[detection]
snapshot_seconds = 0.3
[containment]
mode = "enforce"
grace_seconds = 1
max_stops_per_hour = 1000000
[[containment.endpoints]]
name = "site"
url = "{url}"
secrets = ["{secret}"]
allow_private = true
"""


@dataclass
class Run:
    """``done`` says which kills there were, in order."""

    daemon: Daemon
    site: Site
    archive: Archive
    port: int
    rng: Random
    senders: list[Sender] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def under_load(self, seed: int, kills: int) -> None:
        """Let senders speak, kill, and wait until all that is left to do is done; then stop."""
        ending = threading.Event()
        key = self._key()
        self.senders = [Sender(f"s{n}", seed, self.port, key, ending) for n in range(SENDERS)]
        for sender in self.senders:
            sender.start()
        for kind in plan(self.rng, kills):
            began = time.monotonic()
            what = kill_once(self.daemon, self.rng, kind)
            self.done.append(f"{what} ({time.monotonic() - began:.1f} s)")
        ending.set()
        for sender in self.senders:
            sender.join(90)
            assert not sender.is_alive(), f"{sender.name} never got an answer"
        self._settle()

    def _key(self) -> str:
        state = State(self.daemon.data / "state.db")
        try:
            return Keys(state).create("chaos")[1]
        finally:
            state.close()

    def _settle(self) -> None:
        until(self.daemon.ready, "the daemon is ready", 60)
        last = max(segments(self.daemon.data / "spool"))
        spoken = 0.0

        def at_rest() -> bool:
            nonlocal spoken
            if time.monotonic() - spoken > SPEAKS_EVERY:
                # somebody must go on speaking, or nobody's silence proves anything
                self.daemon.client.send([_bystander()], live=True)
                spoken = time.monotonic()
            orders = held(self.daemon.data / "state.db").orders
            judged = self.daemon.metrics()["detection"].get("segment", 0) > last
            return judged and not {order.state for order in orders} & {*IN_FLIGHT, "confirmed"}

        until(at_rest, "every order has come to its end", 180)
        self.daemon.stop()
        self.archive.close()


def _bystander() -> bytes:
    moment = datetime.now(UTC).isoformat()
    return json.dumps(
        {"event_type": "model.invoked", "agent_id": "calm-0", "session_id": "by", "timestamp": moment}
    ).encode()


@contextlib.contextmanager
def run(folder: Path, seed: int) -> Iterator[Run]:
    """A daemon on ports of its own, with an endpoint and an archive, within the block."""
    rng = Random(seed)
    with site() as endpoint:
        settings = SETTINGS.format(url=endpoint.url, secret=SECRET)
        port = free_port(rng)
        daemon = Daemon(folder / "data", settings, edge_port=port, console_port=free_port(rng))
        daemon.start()
        archive = Archive(folder / "data" / "spool", folder / "archive")
        archive.start()
        try:
            yield Run(daemon, endpoint, archive, port, rng)
        finally:
            daemon.stop()
            if daemon.process and daemon.process.poll() is None:
                daemon.kill()
