"""From HTTP to answered, judged, stored, alerted and ordered: rates at full speed, delays at a steady one."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvicorn

from monitor.bench.load import background
from monitor.bench.sender import Work
from monitor.child import daemon
from monitor.client import Client
from monitor.daemon import address, listen
from monitor.runtime import Runtime
from monitor.simulation.endpoint import StopResult, endpoint_app

PATIENCE_SECONDS = 900.0
STEADY_RATE = 5_000.0
STEADY_SECONDS = 30.0
SPANS = 100_000
RULE = "ce2f79a5-8e0e-4327-a3b3-832e706661ee"
"""Tool ran although it had been denied: what the probes do."""

SETTINGS = """\
data = {data}
[edge]
port = 0
[console]
port = 0
[containment]
mode = "enforce"
max_stops_per_hour = 1000000
[[containment.endpoints]]
name = "bench"
url = {url}
secrets = [{secret}]
allow_private = true
"""

Report = Callable[[str], None]


def ingest(events: int, batch: int, senders: int, busy: bool, report: Report) -> dict[str, Any]:
    """Measure a daemon of its own with all shipped rules and detectors on; ``report`` hears each step.

    Rates are events over the time from the first request to the last answer, the last
    judgement and the last insert. Delays run from the moment before a request is sent to the
    time written on the alert, and to the moment before its order is sent. With ``busy``,
    a hunt over a large history, a refit and an export run all the while.
    """
    with _fresh(busy, report) as bench:
        report(f"{events:,} events at full speed, {batch} to a request")
        rates = bench.full_speed("events", events, batch, senders)
        peak = bench.peak_rss_mb()
    with _fresh(busy, report) as bench:
        report(f"{STEADY_RATE:,.0f} events/s for {STEADY_SECONDS:.0f} s")
        delays = bench.steady(batch, senders)
        peak = max(peak, bench.peak_rss_mb())
    with _fresh(busy, report) as bench:
        report(f"{SPANS:,} OTLP spans, {batch} to a request")
        spans = bench.full_speed("spans", SPANS, batch, senders)
    return {
        "events": events,
        "events_per_request": batch,
        "busy": busy,
        "events_per_second": rates["per_second"],
        **delays,
        "peak_rss_mb": peak,
        "otlp_spans_per_second": spans["per_second"]["answered"],
        "cpu_us_per_event": rates["cpu_us"],
        "busy_answers": rates["busy_answers"],
        "otlp": {
            "judged_spans_per_second": spans["per_second"]["judged"],
            "cpu_us_per_span": spans["cpu_us"],
        },
    }


@contextlib.contextmanager
def _fresh(busy: bool, report: Report) -> Iterator[Bench]:
    """A daemon on an empty folder, an endpoint that takes its orders, and the load beside it."""
    with tempfile.TemporaryDirectory(prefix="watchkeeper-bench-") as folder, _endpoint() as (url, secret):
        data = Path(folder) / "data"
        config = Path(folder) / "bench.toml"
        config.write_text(
            SETTINGS.format(data=json.dumps(str(data)), url=json.dumps(url), secret=json.dumps(secret))
        )
        with (
            background(busy, config, data, report) as load,
            daemon(config, data, Path(folder) / "daemon.log") as runtime,
        ):
            load.begin(runtime)
            yield Bench(runtime, Client.find(data))
            load.end()


class Bench:
    """One running daemon under measurement."""

    def __init__(self, runtime: Runtime, client: Client) -> None:
        self._runtime = runtime
        self._client = client

    def full_speed(self, kind: str, count: int, batch: int, senders: int) -> dict[str, Any]:
        """Send ``count`` events or spans as fast as they are answered; rates, and where the time went."""
        before = self._cpu()
        sent = self._send(kind, count, batch, senders)
        total = self._metric("edge", "edge_events_total", above=0 if kind == "spans" else count - 1)
        ends = {
            "answered": sent["answered_at"],
            "judged": self._reached("detection", "judged", total),
            "stored": self._reached("console", "stored", total),
        }
        after = self._cpu()
        return {
            "per_second": {
                name: round(count / ((end - sent["begun_at"]) / 1e6)) for name, end in ends.items()
            },
            "cpu_us": {name: round((after[name] - before[name]) / count * 1e6, 1) for name in after},
            "busy_answers": sent["busy_answers"],
        }

    def steady(self, batch: int, senders: int) -> dict[str, Any]:
        """Send at ``STEADY_RATE`` with probes among it; percentiles of the delays, in milliseconds."""
        sent = self._send("events", int(STEADY_RATE * STEADY_SECONDS), batch, senders, STEADY_RATE)
        probes: dict[str, int] = sent["probes"]
        deadline = time.monotonic() + 60
        while True:
            alerts = {a["agent_id"]: a for a in self._client.alerts(rule=RULE) if a["agent_id"] in probes}
            orders = self._orders(probes)
            if len(alerts) == len(probes) == len(orders):
                break
            if time.monotonic() > deadline:
                raise OSError(f"{len(probes)} probes, but {len(alerts)} alerts and {len(orders)} orders sent")
            time.sleep(0.2)
        return {
            "arrival_to_alert_ms": _delays([alerts[name]["created_at"] - at for name, at in probes.items()]),
            "arrival_to_order_ms": _delays([orders[name] - at for name, at in probes.items()]),
            "probes": len(probes),
        }

    def _orders(self, probes: dict[str, int]) -> dict[str, int]:
        """When the first order against each probe was sent."""
        found: dict[str, int] = {}
        cursor = None
        while True:
            page = self._client.get("/api/v1/orders", cursor=cursor, limit=200)
            for order in page["items"]:
                if order["agent_id"] in probes and order["sent_at"]:
                    found[order["agent_id"]] = order["sent_at"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def _send(self, kind: str, count: int, batch: int, senders: int, rate: float = 0.0) -> dict[str, Any]:
        work = Work(self._runtime.edge_url, self._runtime.token, kind, count, batch, senders, rate)  # type: ignore[arg-type]
        done = subprocess.run(
            [sys.executable, "-m", "monitor.bench.sender"],
            input=msgspec.json.encode(work),
            capture_output=True,
            timeout=PATIENCE_SECONDS,
        )
        if done.returncode:
            raise OSError(done.stderr.decode()[-300:].strip())
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _processes(self) -> list[dict[str, Any]]:
        processes: list[dict[str, Any]] = self._client.get("/api/v1/status")["processes"]
        return processes

    def _metric(self, process: str, name: str, above: float) -> int:
        """A counter, once it is above a number and no longer grows: heartbeats come each second."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        last = -1.0
        while time.monotonic() < deadline:
            now = next(p["metrics"].get(name, 0) for p in self._processes() if p["name"] == process)
            if now > above and now == last:
                return int(now)
            last = now
            time.sleep(1.1)
        raise OSError(f"{process}: {name} did not get beyond {above:.0f}")

    def _reached(self, process: str, done: str, events: int) -> int:
        """Wait until a process's counter reaches ``events``; the wall time at which it did."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for found in self._processes():
                metrics = found["metrics"]
                if found["name"] == process and metrics.get(f"{done}_events", 0) >= events:
                    return int(metrics[f"{done}_at"])
            time.sleep(0.2)
        raise OSError(f"{process} did not reach {events} events within {PATIENCE_SECONDS:.0f} s")

    def _cpu(self) -> dict[str, float]:
        """Processor seconds of each process so far."""
        tick = os.sysconf("SC_CLK_TCK")
        used = {}
        for process in self._processes():
            fields = Path(f"/proc/{process['pid']}/stat").read_text().rpartition(")")[2].split()
            used[process["name"]] = (int(fields[11]) + int(fields[12])) / tick
        return used

    def peak_rss_mb(self) -> int:
        """The sum of the processes' peak resident memory, MB."""
        peak = 0
        for pid in [process["pid"] for process in self._processes()] + [self._runtime.pid]:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak += int(line.split()[1])
        return peak * 1024 // 10**6


def _delays(microseconds: Sequence[int]) -> dict[str, float]:
    return {f"p{p}": round(float(np.percentile(microseconds, p)) / 1000, 1) for p in (50, 99)}


@contextlib.contextmanager
def _endpoint() -> Iterator[tuple[str, str]]:
    """A kill-switch endpoint that confirms at once: its address and its secret."""

    async def stop(_target: dict[str, Any]) -> StopResult:
        return StopResult("stopped", "bench")

    secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
    listener = listen("127.0.0.1", 0, "endpoint")
    server = uvicorn.Server(uvicorn.Config(endpoint_app(secret, stop), log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"{address(listener)}/kill", secret
    finally:
        server.should_exit = True
        thread.join()
