"""SIGKILL to the whole daemon or to one of its processes, at moments that a seed chooses."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.chaos.powercut import leave_traces
from tests.daemons import Daemon, until

READY = 0.5
"""Share of kills that wait until every process is at work."""


def free_port(rng: Random) -> int:
    """A port outside the range from which the system takes those of outgoing connections.

    The daemon's ports must stay its own while it is down.
    """
    while True:
        port = rng.randrange(18_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def part_pid(daemon: Daemon, name: str) -> int | None:
    """The process ``name`` of this very daemon, as its heartbeat tells; None while there is none."""
    assert daemon.process
    with contextlib.closing(sqlite3.connect(f"file:{daemon.data / 'state.db'}?mode=ro", uri=True)) as state:
        rows = state.execute("SELECT pid FROM processes WHERE name = ?", (name,)).fetchall()
    pid = rows[0][0] if rows else 0
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None
    return pid if parent == daemon.process.pid else None


def kill_part(daemon: Daemon, name: str) -> None:
    """SIGKILL to one process; the supervisor starts another."""
    pid = until(lambda: part_pid(daemon, name), f"a sign of life of {name}", 40)
    os.kill(pid, signal.SIGKILL)


def kill_supervisor(daemon: Daemon) -> None:
    """SIGKILL to the supervisor alone, then a new daemon at once: it must wait for the orphans."""
    assert daemon.process
    daemon.process.kill()
    daemon.process.wait(10)
    daemon.start(ready=False)


def kill_all(daemon: Daemon) -> None:
    """SIGKILL to every process, then a new daemon."""
    daemon.kill()
    daemon.start(ready=False)


def kill_starting(daemon: Daemon, after: float) -> None:
    """The same, and once more ``after`` seconds into the new daemon's start."""
    daemon.kill()
    daemon.spawn()
    time.sleep(after)
    kill_all(daemon)


def at_random(seconds: float) -> Callable[[], bool]:
    """Whether ``seconds`` have passed."""
    over = time.monotonic() + seconds
    return lambda: time.monotonic() > over


def cut_power(daemon: Daemon, rng: Random) -> None:
    """SIGKILL to every process, with what a power cut leaves on the disk."""
    daemon.kill()
    leave_traces(daemon.data, rng)
    daemon.start(ready=False)


def wait_until(look: Callable[[], bool], seconds: float) -> None:
    """Look very often until something is so, ``seconds`` at most: some states last a millisecond."""
    deadline = time.monotonic() + seconds
    while not look() and time.monotonic() < deadline:
        time.sleep(0.0002)


def snapshot_is_written(data: Path) -> Callable[[], bool]:
    """Whether a snapshot's draft is on its way to the disk just now."""
    return lambda: any(name.endswith(".draft") for name in os.listdir(data / "snapshots"))


def segment_ends(data: Path) -> Callable[[], bool]:
    """Whether another segment has come into being since the first look: the one before was just sealed."""
    before = len(os.listdir(data / "spool"))
    return lambda: len(os.listdir(data / "spool")) > before


def state_is_committed(data: Path) -> Callable[[], bool]:
    """Whether somebody has just written to the state database's log."""
    log = data / "state.db-wal"

    def written() -> int:
        return log.stat().st_mtime_ns if log.exists() else 0

    before = written()
    return lambda: written() != before


KINDS: dict[str, Callable[[Daemon, Random], None]] = {
    "all": lambda daemon, rng: kill_all(daemon),
    "all, and again as it starts": lambda daemon, rng: kill_starting(daemon, rng.uniform(0, 3)),
    "power": cut_power,
    "supervisor": lambda daemon, rng: kill_supervisor(daemon),
    "edge": lambda daemon, rng: kill_part(daemon, "edge"),
    "detection": lambda daemon, rng: kill_part(daemon, "detection"),
    "console": lambda daemon, rng: kill_part(daemon, "console"),
}
MOMENTS: dict[str, Callable[[Daemon, Random], Callable[[], bool]]] = {
    "soon": lambda daemon, rng: at_random(rng.uniform(0, 0.003)),
    "some time": lambda daemon, rng: at_random(rng.expovariate(1.5)),
    "as a snapshot is written": lambda daemon, rng: snapshot_is_written(daemon.data),
    "as a segment ends": lambda daemon, rng: segment_ends(daemon.data),
    "as the state is committed": lambda daemon, rng: state_is_committed(daemon.data),
}


def kill_once(daemon: Daemon, rng: Random, kind: str) -> str:
    """One kill at a moment that the seed chooses, of a ready daemon or of one that still starts."""
    if rng.random() < READY:
        until(daemon.ready, "the daemon is ready", 60)
    moment = rng.choice(sorted(MOMENTS))
    wait_until(MOMENTS[moment](daemon, rng), 3)
    KINDS[kind](daemon, rng)
    return f"{kind}, {moment}"


def plan(rng: Random, count: int) -> list[str]:
    """Kinds of kill, each about as often, in an order that the seed chooses."""
    kinds = sorted(KINDS) * (count // len(KINDS) + 1)
    chosen = kinds[:count]
    rng.shuffle(chosen)
    return chosen
