"""The console: stores sealed segments in ClickHouse and serves pages and API."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from detectors.sigma import load_rules
from monitor.alerting.alerts import AlertDesk
from monitor.events import rule_fields
from monitor.pipeline import Keep
from monitor.processes.common import Server, begin, show_life, web_server
from monitor.response.orders import OrderDesk
from monitor.scheduler import start_scheduler
from monitor.settings import Settings
from monitor.store.clickhouse import EventStore
from monitor.store.positions import Positions
from monitor.store.queries import Readers
from monitor.store.state import State
from monitor.telemetry import logger
from monitor.web.app import console_app

IDLE_SECONDS = 0.1
RETRY_SECONDS = 2.0
NICENESS = 5
"""Lower priority than edge and detection: nobody's stop waits for a page."""


def run(settings: Settings, sock: socket.socket) -> None:
    """Process entry: serve and store until told to end, then store all that is sealed."""
    stop = begin(settings, "console")
    os.nice(NICENESS)
    state = State(settings.state_file)
    store = EventStore.open(settings)
    readers = Readers(store)
    keep = Keep(settings.spool_folder, store, Positions(state))
    rules = load_rules(settings.detection.rules, rule_fields())
    alerts = AlertDesk(state, {rule.id: rule for rule in rules.rules}, settings)
    orders = OrderDesk(
        state,
        settings.containment,
        {rule.id: rule.response for rule in rules.rules if rule.response},
        page=alerts.file,
    )
    app = console_app(state, settings, readers, alerts, orders, store_ready=store.ping)

    def vitals() -> tuple[dict[str, float], dict[str, Any]]:
        return keep.metrics(), {}

    show_life(state, "console", vitals, stop)
    scheduler = start_scheduler(state)
    server = web_server(app, drain_seconds=2)
    storing = threading.Thread(target=_store, args=(keep, stop), name="storing")
    storing.start()
    threading.Thread(target=_end, args=(server, stop), name="end", daemon=True).start()
    server.run(sockets=[sock])
    storing.join()
    scheduler.shutdown(wait=False)
    readers.close()
    store.close()
    state.close()


def _end(server: Server, stop: threading.Event) -> None:
    stop.wait()
    server.should_exit = True


def _store(keep: Keep, stop: threading.Event) -> None:
    """Store whatever is sealed; a failure is tried again with the same token."""
    log = logger()
    while True:
        try:
            stored = keep.step()
        except Exception:
            if stop.is_set():
                log.exception("storing failed at the end; the spool keeps it for the next start")
                return
            log.exception("storing failed; the spool keeps it", retry_seconds=RETRY_SECONDS)
            stop.wait(RETRY_SECONDS)
            continue
        if not stored and stop.is_set():
            return
        if not stored:
            stop.wait(IDLE_SECONDS)
