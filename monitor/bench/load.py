"""What runs beside a busy daemon: a hunt over a large history, a refit, and an export.

The hunt is the real one, inside the daemon. The others give way to the daemon, as whatever is not urgent
must on a small machine: they are niced, and compute in one thread.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from monitor.client import Client
from monitor.runtime import Runtime

HISTORY = 5_000_000
BLOCK = 100_000


NICE = 10
HUNTED = "ce2f79a5-8e0e-4327-a3b3-832e706661ee"
"""Tool ran although it had been denied: a chain of two events of one call, which SQL can ask for."""

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}


class Load:
    """The processes that make the load; none of them before ``begin``."""

    def __init__(self, wanted: bool, config: Path) -> None:
        self._wanted = wanted
        self._config = config
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self, runtime: Runtime) -> None:
        """Start them against a running daemon."""
        for kind in KINDS if self._wanted else ():
            command = [
                sys.executable,
                "-m",
                "monitor.bench.load",
                kind,
                runtime.console_url,
                str(self._config),
            ]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **ONE_THREAD})
            assert process.stdin
            process.stdin.write(runtime.token.encode())
            process.stdin.close()
            self._processes.append(process)

    def end(self) -> None:
        """Stop them."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()


@contextlib.contextmanager
def background(wanted: bool, config: Path, data: Path, report: Callable[[str], None]) -> Iterator[Load]:
    """The load beside the block; where it is wanted, ``data`` gets ``HISTORY`` events first."""
    if wanted:
        report(f"{HISTORY:,} events of history")
        # ClickHouse opens a folder for one process, and never again in one that has closed it.
        subprocess.run([sys.executable, "-m", "monitor.bench.load", "fill", str(data)], check=True)
    load = Load(wanted, config)
    try:
        yield load
    finally:
        load.end()


def fill(data: Path) -> None:
    """Put ``HISTORY`` events of a year into the store."""
    import pyarrow as pa

    from monitor.bench.sample import RUN, event_bodies
    from monitor.events import arrow_batch
    from monitor.settings import EdgeSettings, load
    from monitor.sources.gate import Gate
    from monitor.sources.keys import KEYLESS
    from monitor.store.clickhouse import EventStore, placed

    store = EventStore.open(load(data=data))
    gate = Gate(EdgeSettings())
    lines = b"\n".join(event_bodies(500)).replace(RUN, b"h").split(b"\n")[:10_000]
    block = pa.concat_tables([pa.table(arrow_batch([gate.check(line, KEYLESS) for line in lines]))] * 10)
    day = timedelta(days=365) / (HISTORY // BLOCK)
    for number in range(HISTORY // BLOCK):
        ids = pa.array([f"h{number}-{row}" for row in range(BLOCK)])
        at = datetime.now(UTC) - timedelta(days=365) + number * day
        times = pa.array(
            np.datetime64(at.replace(tzinfo=None), "us") + np.arange(BLOCK), pa.timestamp("us", "UTC")
        )
        table = block.set_column(0, block.schema.field(0), ids)
        for name in ("timestamp", "ingested_at"):
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(place), times)
        store.insert(placed(table, 0), f"bench-history-{number}")
    store.close()


def hunts(_client: Client, config: Path) -> None:
    """Hunt over the whole history, again and again."""
    command = [sys.executable, "-m", "monitor.cli", "--config", str(config), "rules", "hunt", HUNTED]
    while True:
        subprocess.run([*command, "--from", "400d", "--json"], check=True, stdout=subprocess.DEVNULL)


def refit(_client: Client, _config: Path) -> None:
    """Compute as a model does that is fitted anew: sorts and products over 100,000 vectors of 20."""
    vectors = np.random.default_rng(1).normal(size=(100_000, 20))
    while True:
        order = np.argsort(vectors, axis=0)
        np.linalg.eigh(vectors[order[:, 0]].T @ vectors)


def export(client: Client, _config: Path) -> None:
    """Read alerts with all that belongs to them, page by page."""
    while True:
        for alert in client.alerts():
            client.get(f"/api/v1/alerts/{alert['id']}")
        time.sleep(0.1)


KINDS = {"hunt": hunts, "refit": refit, "export": export}


def main() -> None:
    """Process entry: the kind of load, and where."""
    kind, where, *config = sys.argv[1:]
    if kind == "fill":
        fill(Path(where))
        return
    os.nice(NICE)
    KINDS[kind](Client(where, where, sys.stdin.read()), Path(*config))


if __name__ == "__main__":
    main()
