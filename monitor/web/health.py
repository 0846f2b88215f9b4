"""What machines ask: is it alive, can it work, and its numbers for Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from monitor.settings import is_loopback
from monitor.web.auth import Api
from monitor.web.context import Console, InConsole
from monitor.web.formats import SECOND
from monitor.web.problems import problem
from monitor.web.pulse import FRESH_SECONDS, Pulse, pulse
from monitor.web.safe import safe_plain

router = APIRouter(tags=["health"])

NEEDED = ("edge", "detection")
READER = Api("read")


@router.get("/healthz")
def healthz() -> JSONResponse:
    """The process lives."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
def readyz(console: InConsole) -> JSONResponse:
    """Everything that work needs is there; otherwise 503 with each reason."""
    reasons = [*_state_reasons(console), *_store_reasons(console)]
    if reasons:
        return problem(503, "; ".join(reasons), reasons=reasons)
    return JSONResponse({"status": "ready"})


def _state_reasons(console: Console) -> Iterator[str]:
    try:
        with console.state.read() as session:
            seen = pulse(session)
    except SQLAlchemyError as error:
        yield f"the state database cannot be read ({type(error).__name__}); check disk and data folder"
        return
    for name in NEEDED:
        part = seen.part(name)
        if part.age is None:
            yield f"the {name} process has not started yet"
        elif not part.fresh:
            yield (
                f"the {name} process has shown no sign of life for {part.age // SECOND} s "
                f"(limit {FRESH_SECONDS:.0f} s); see its log"
            )
        elif part.fault:
            yield f"the {name} process: {safe_plain(part.fault)}"


def _store_reasons(console: Console) -> Iterator[str]:
    try:
        ready = console.store_ready()
    except Exception as error:
        yield f"the event store does not answer ({type(error).__name__}); see the console's log"
        return
    if ready is False:
        yield "the event store is not ready; see the console's log"


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, console: InConsole) -> Response:
    """Prometheus text. Open to this machine; from elsewhere it takes a key with the ``read`` scope."""
    if not _from_this_machine(request):
        await READER(request, console)
    return await run_in_threadpool(_metrics, console)


def _metrics(console: Console) -> Response:
    with console.state.read() as session:
        seen = pulse(session)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(seen))
    return PlainTextResponse(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})


def _from_this_machine(request: Request) -> bool:
    """A proxy's requests come from loopback too, and so may a web page's by DNS rebinding."""
    forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
    peer = request.client.host if request.client else ""
    return not forwarded and is_loopback(peer) and is_loopback(request.url.hostname or "")


class _Snapshot(Collector):
    """One reading of the state database as metric families."""

    def __init__(self, seen: Pulse) -> None:
        self._seen = seen

    def collect(self) -> Iterable[Metric]:
        yield from self._processes()
        seen = self._seen
        alerts = GaugeMetricFamily("watchkeeper_alerts", "alerts kept", labels=["level", "status"])
        for (level, status), count in sorted(seen.alerts.items()):
            alerts.add_metric([level, status], count)
        orders = GaugeMetricFamily("watchkeeper_orders", "kill-switch orders kept", labels=["state"])
        for state, count in sorted(seen.orders.items()):
            orders.add_metric([state], count)
        deliveries = GaugeMetricFamily("watchkeeper_deliveries", "messages", labels=["channel", "state"])
        for (channel, state), count in sorted(seen.deliveries.items()):
            deliveries.add_metric([channel, state], count)
        yield from (alerts, orders, deliveries)

    def _processes(self) -> Iterator[Metric]:
        ages = GaugeMetricFamily(
            "watchkeeper_heartbeat_age_seconds", "time since the last sign of life", labels=["process"]
        )
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for part in self._seen.parts:
            if part.age is not None:
                ages.add_metric([part.name], part.age / SECOND)
            for name, value in sorted(part.metrics.items()):
                full = "watchkeeper_" + re.sub(r"[^a-zA-Z0-9_]", "_", name)
                kind = CounterMetricFamily if full.endswith("_total") else GaugeMetricFamily
                family = families.setdefault(full, kind(full, name.replace("_", " "), labels=["process"]))
                family.add_metric([part.name], value)
        yield ages
        yield from families.values()
