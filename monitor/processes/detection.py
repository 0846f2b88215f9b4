"""Detection: reads the spool, judges, files alerts, sends orders and messages."""

from __future__ import annotations

import threading
from typing import Any

from detectors.engine import Engine
from detectors.registry import learners
from detectors.sigma import SigmaDetector, load_rules
from monitor.alerting.alerts import AlertDesk
from monitor.alerting.outbox import Outbox
from monitor.events import rule_fields
from monitor.pipeline import Watch
from monitor.processes.common import begin, show_life
from monitor.response.containment import SilenceProof
from monitor.response.orders import OrderDesk
from monitor.response.worker import OrderWorker
from monitor.settings import Settings
from monitor.sources.spool import Position, SpoolReader
from monitor.store.positions import Positions
from monitor.store.snapshots import Snapshots
from monitor.store.state import State
from monitor.telemetry import logger

IDLE_SECONDS = 0.005
"""How long to wait for the spool to grow; half of it is the mean added delay."""


def run(settings: Settings, console_url: str) -> None:
    """Process entry: judge until told to end, then everything that the spool still holds."""
    stop = begin(settings, "detection")
    state = State(settings.state_file)
    watch, alerts, orders = build(settings, state)
    sender, outbox = OrderWorker(state, orders, settings.containment), Outbox(state, settings, console_url)
    orders.on_wake(sender.wake)
    orders.on_wake(outbox.wake)
    alerts.on_wake(outbox.wake)
    sender.start()
    outbox.start()

    def vitals() -> tuple[dict[str, float], dict[str, Any]]:
        return watch.metrics(), {"profiles": watch.engine.profiles()}

    show_life(state, "detection", vitals, stop)
    judge(watch, stop)
    sender.stop()
    outbox.stop()
    state.close()


def build(settings: Settings, state: State) -> tuple[Watch, AlertDesk, OrderDesk]:
    """The main path's second third, going on from the last snapshot."""
    rules = load_rules(settings.detection.rules, rule_fields())
    engine = Engine(SigmaDetector(rules), learners(settings.detection.false_alerts_per_1000_sessions))
    snapshots = Snapshots(settings.data / "snapshots", settings.detection.snapshot_seconds)
    position: Position | None = None
    if (saved := snapshots.load()) is not None:
        engine.restore(saved[0])
        position = saved[1]
    by_id = {rule.id: rule for rule in rules.rules}
    alerts = AlertDesk(state, by_id, settings)
    orders = OrderDesk(
        state,
        settings.containment,
        {rule.id: rule.response for rule in rules.rules if rule.response},
        page=alerts.file,
    )
    watch = Watch(
        SpoolReader(settings.spool_folder, position),
        engine,
        rules.attribute_keys,
        state,
        alerts,
        orders,
        SilenceProof(state, orders, settings.containment),
        snapshots,
        Positions(state),
        settings.detection.batch_events,
    )
    return watch, alerts, orders


def judge(watch: Watch, stop: threading.Event) -> None:
    """The loop. After ``stop`` it goes on until the spool is read to its end."""
    log = logger()
    log.info("judging", segment=watch.reader.position.segment, offset=watch.reader.position.offset)
    while True:
        judged = watch.step()
        if not judged and stop.is_set():
            break
        if not judged:
            stop.wait(IDLE_SECONDS)
    watch.save()
