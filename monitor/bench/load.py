"""What runs beside a busy daemon: scans of a large history, a refit, and an export."""

from __future__ import annotations

import contextlib
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


class Load:
    """The processes that make the load; none of them before ``begin``."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self, runtime: Runtime) -> None:
        """Start them against a running daemon."""
        for kind in ("scan", "refit", "export") if self._wanted else ():
            command = [sys.executable, "-m", "monitor.bench.load", kind, runtime.console_url]
            process = subprocess.Popen(command, stdin=subprocess.PIPE)
            assert process.stdin
            process.stdin.write(runtime.token.encode())
            process.stdin.close()
            self._processes.append(process)

    def end(self) -> None:
        """Stop them."""
        for process in self._processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def background(wanted: bool, data: Path, report: Callable[[str], None]) -> Iterator[Load]:
    """The load beside the block; where it is wanted, ``data`` gets ``HISTORY`` events first."""
    if wanted:
        report(f"{HISTORY:,} events of history")
        # ClickHouse opens a folder for one process, and never again in one that has closed it.
        subprocess.run([sys.executable, "-m", "monitor.bench.load", "fill", str(data)], check=True)
    load = Load(wanted)
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


def scan(client: Client) -> None:
    """Ask again and again what needs a look at all events."""
    while True:
        client.get("/api/v1/agents")


def refit(_client: Client) -> None:
    """Compute as a model does that is fitted anew: sorts and products over 100,000 vectors of 20."""
    vectors = np.random.default_rng(1).normal(size=(100_000, 20))
    while True:
        order = np.argsort(vectors, axis=0)
        np.linalg.eigh(vectors[order[:, 0]].T @ vectors)


def export(client: Client) -> None:
    """Read alerts with all that belongs to them, page by page."""
    while True:
        for alert in client.alerts():
            client.get(f"/api/v1/alerts/{alert['id']}")
        time.sleep(0.1)


def main() -> None:
    """Process entry: the kind of load, and where."""
    kind, where = sys.argv[1:]
    if kind == "fill":
        fill(Path(where))
        return
    client = Client(where, where, sys.stdin.read())
    {"scan": scan, "refit": refit, "export": export}[kind](client)


if __name__ == "__main__":
    main()
