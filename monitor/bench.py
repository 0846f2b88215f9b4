"""Benchmarks: real daemon, real sockets, real disk. Figures are the machine's own."""

from __future__ import annotations

import http.client
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from monitor.child import daemon
from monitor.client import Client
from monitor.runtime import Runtime

PATIENCE_SECONDS = 600.0


def ingest(events: int, batch: int, senders: int) -> dict[str, Any]:
    """Send ``events`` events and wait until the daemon has judged and stored them all.

    All shipped rules and detectors are on. Rates are events over the time from the first
    request to the last answer, the last judgement and the last insert.
    """
    with tempfile.TemporaryDirectory(prefix="watchkeeper-bench-") as folder:
        data = Path(folder) / "data"
        config = Path(folder) / "bench.toml"
        config.write_text(f'data = "{data}"\n[edge]\nport = 0\n[console]\nport = 0\n')
        bodies = list(_bodies(events, batch, Path(folder)))
        with daemon(config, data, Path(folder) / "daemon.log") as runtime:
            client = Client.find(data)
            begun = time.time_ns() // 1000
            answered = _send_all(runtime, bodies, senders)
            judged = _reached(client, "detection", "judged", events)
            stored = _reached(client, "console", "stored", events)
            peak = _peak_rss_mb(client, runtime)
    ends = {"answered": answered, "judged": judged, "stored": stored}
    return {
        "events": events,
        "events_per_request": batch,
        "events_per_second": {name: round(events / ((end - begun) / 1e6)) for name, end in ends.items()},
        "peak_rss_mb": peak,
    }


def _bodies(events: int, batch: int, folder: Path) -> Iterator[bytes]:
    """Requests of a simulated fleet's history, repeated under other ids until there are enough."""
    import gzip

    from monitor.simulation.history import write_history
    from monitor.simulation.plan import make_plan

    file = folder / "history.ndjson.gz"
    write_history(make_plan(1), datetime.now(UTC), file)
    lines = gzip.decompress(file.read_bytes()).splitlines()
    for start in range(0, events, batch):
        part = []
        for number in range(start, min(start + batch, events)):
            repeat, index = divmod(number, len(lines))
            part.append(lines[index].replace(b'"event_id":"', b'"event_id":"%d-' % repeat, 1))
        yield b"\n".join(part)


def _send_all(runtime: Runtime, bodies: Sequence[bytes], senders: int) -> int:
    """Post every body once; the wall time of the last answer, in microseconds."""
    waiting: SimpleQueue[bytes] = SimpleQueue()
    for body in bodies:
        waiting.put(body)
    faults: list[str] = []

    def send() -> None:
        connection = http.client.HTTPConnection(urlsplit(runtime.edge_url).netloc, timeout=60)
        headers = {
            "Authorization": f"Bearer {runtime.token}",
            "Content-Type": "application/x-ndjson",
            "Watchkeeper-Replay": "true",
        }
        while not waiting.empty():
            body = waiting.get()
            while True:
                connection.request("POST", "/v1/events", body, headers)
                reply = connection.getresponse()
                text = reply.read()
                if reply.status == 200:
                    break
                if reply.status not in (429, 503):
                    faults.append(text.decode()[:300])
                    return
                time.sleep(float(reply.headers.get("Retry-After", 1)))

    threads = [threading.Thread(target=send) for _ in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise OSError(f"the daemon refused the benchmark's events: {faults[0]}")
    return time.time_ns() // 1000


def _reached(client: Client, process: str, done: str, events: int) -> int:
    """Wait until a process's counter reaches ``events``; the wall time at which it did."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = client.get("/api/v1/status")["processes"]
        metrics: dict[str, float] = next((p["metrics"] for p in found if p["name"] == process), {})
        if metrics.get(f"{done}_events", 0) >= events:
            return int(metrics[f"{done}_at"])
        time.sleep(0.2)
    raise OSError(f"{process} did not reach {events} events within {PATIENCE_SECONDS:.0f} s")


def _peak_rss_mb(client: Client, runtime: Runtime) -> int:
    """The sum of the processes' peak resident memory, MB."""
    pids = [p["pid"] for p in client.get("/api/v1/status")["processes"]] + [runtime.pid]
    peak = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak += int(line.split()[1])
    return peak * 1024 // 10**6
