"""The console: stores sealed segments in ClickHouse and serves pages and API."""

from __future__ import annotations

import os
import socket
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from monitor.alerting.alerts import AlertDesk
from monitor.alerting.deliveries import PICTURES
from monitor.alerting.outbox import Outbox
from monitor.alerting.own import own_finding
from monitor.alerting.pictures import SlackPictures, drawn_from
from monitor.faults import expected
from monitor.pipeline import Keep
from monitor.processes.beginning import GAP, GAP_TITLE, told_unstored
from monitor.processes.common import Server, begin, show_life, web_server
from monitor.refit import when_due
from monitor.response.orders import OrderDesk
from monitor.rulebook import in_force
from monitor.scheduler import start_scheduler
from monitor.settings import Settings
from monitor.sources.room import free_bytes
from monitor.store.clickhouse import LateStore
from monitor.store.fault import StoreError
from monitor.store.positions import Positions
from monitor.store.queries import Readers
from monitor.store.rulesets import Known, RuleSets
from monitor.store.state import State
from monitor.telemetry import logger
from monitor.web.app import console_app

IDLE_SECONDS = 0.1
SHORTEST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
"""Seconds between two tries while storing fails."""
REFIT_AFTER_MINUTES = 5
"""Minutes after a start until it is seen whether a refit is due; then every hour."""

NICENESS = 5
"""Lower priority than edge and detection: nobody's stop waits for a page."""


def run(settings: Settings, sock: socket.socket, rules_hash: str) -> None:
    """Process entry: serve and store until told to end, then store all that is sealed."""
    stop = begin(settings, "console")
    os.nice(NICENESS)
    state = State(settings.state_file)
    # Pages, API and people's orders must work while ClickHouse is down.
    store = LateStore(settings)
    readers = Readers(store)
    alerts = AlertDesk(state, {}, settings)
    orders = OrderDesk(state, settings.containment, {}, page=alerts.file)
    known = Known(
        state,
        RuleSets(settings.rule_sets_folder),
        rules_hash,
        partial(in_force, alerts=alerts, orders=orders),
    )
    storing = Storing(settings, state, store, alerts, stop)
    app = console_app(state, settings, readers, alerts, orders, store_ready=store.ping)

    def vitals() -> tuple[dict[str, float], dict[str, Any]]:
        return storing.metrics(), {"fault": storing.fault}

    show_life(state, "console", vitals, stop)
    scheduler = start_scheduler(state)
    scheduler.add_job(
        when_due, "interval", hours=1, args=[settings, state, readers, alerts], id="refit",
        next_run_time=datetime.now(UTC) + timedelta(minutes=REFIT_AFTER_MINUTES),
    )  # fmt: skip
    scheduler.add_job(known.look, "interval", seconds=2, id="rules-in-force")
    pictures = _pictures(settings, state, readers)
    pictures.start()
    server = web_server(app, drain_seconds=2)
    storing.start()
    threading.Thread(target=_end, args=(server, stop), name="end", daemon=True).start()
    server.run(sockets=[sock])
    storing.join()
    scheduler.shutdown(wait=False)
    pictures.stop()
    readers.close()
    store.close()
    state.close()


def _pictures(settings: Settings, state: State, readers: Readers) -> Outbox:
    """The worker that draws for Slack: here, as only this process has the event store."""
    if settings.slack.token is None or not settings.slack.pictures:
        return Outbox(state, {})
    return Outbox(state, {PICTURES: SlackPictures(state, settings.slack, drawn_from(readers))})


def _end(server: Server, stop: threading.Event) -> None:
    stop.wait()
    server.should_exit = True


class Storing(threading.Thread):
    """Opens the event store and stores whatever is sealed; what fails is tried again, same token."""

    def __init__(
        self, settings: Settings, state: State, store: LateStore, alerts: AlertDesk, stop: threading.Event
    ) -> None:
        super().__init__(name="storing")
        self._state = state
        self._alerts = alerts
        self.fault: str | None = None
        self._settings = settings
        self._positions = Positions(state)
        self._late = store
        self._stop_event = stop
        self._keep: Keep | None = None

    def metrics(self) -> dict[str, float]:
        """The counters, from the first opening on."""
        return self._keep.metrics() if self._keep else {"stored_events": 0}

    def run(self) -> None:
        """Until told to end, and then until all that is sealed is stored or cannot be."""
        pause = SHORTEST_PAUSE
        while True:
            try:
                stored = self._step()
                self.fault, pause = None, SHORTEST_PAUSE
            except Exception as error:
                self.fault = f"storing fails: {error}"[:500]
                logger().error(
                    "storing failed; the spool keeps it",
                    why=str(error)[:500],
                    retry_seconds=pause,
                    exc_info=None if expected(error) else error,
                )
                if self._stop_event.is_set():
                    return
                # Told to end meanwhile, it tries once more: the fault may be over.
                self._stop_event.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if not stored and self._stop_event.is_set():
                return
            if not stored:
                self._stop_event.wait(IDLE_SECONDS)

    def _step(self) -> int:
        if self._keep is None:
            self._keep = Keep(self._settings.spool_folder, self._late.open(), self._positions, self._lost)
        self._leave_the_rest_to_alerts()
        return self._keep.step()

    def _lost(self, first: int, last: int) -> None:
        reason = told_unstored(first, last)
        logger().error("part of the spool is gone before it was stored", first=first, last=last)
        with self._state.write() as session:
            self._alerts.file(session, [own_finding(GAP, GAP_TITLE, reason, "critical", about="store")])
        self._alerts.wake()

    def _leave_the_rest_to_alerts(self) -> None:
        reserve = self._settings.spool.min_free_bytes // 2
        if self._settings.store.dsn is None and free_bytes(self._settings.data) < reserve:
            raise StoreError(
                f"the disk has less than {reserve} bytes free, half of spool.min_free_bytes, "
                "which are kept for alerts and orders; free some space"
            )
