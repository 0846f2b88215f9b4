"""Detection: reads the spool, judges, files alerts, sends orders and messages."""

from __future__ import annotations

import threading
import time
from typing import Any

from polars.exceptions import PanicException
from sqlalchemy.exc import SQLAlchemyError

from detectors.engine import Engine
from detectors.registry import learners
from detectors.sigma import RuleSet, SigmaDetector
from monitor.alerting.alerts import AlertDesk
from monitor.alerting.outbox import Outbox
from monitor.alerting.own import own_finding
from monitor.pipeline import Watch
from monitor.processes.beginning import GAP, GAP_TITLE, beginning, told
from monitor.processes.common import begin, show_life
from monitor.processes.selfwatching import SelfWatching
from monitor.response.containment import SilenceProof
from monitor.response.orders import OrderDesk
from monitor.response.worker import OrderWorker
from monitor.rulebook import in_force
from monitor.settings import Settings
from monitor.sources.spool import MissingSegmentError, SpoolReader
from monitor.store.models import Models
from monitor.store.positions import Positions
from monitor.store.rulesets import RuleSets
from monitor.store.snapshots import Snapshots
from monitor.store.state import State
from monitor.telemetry import logger

IDLE_SECONDS = 0.005
"""How long to wait for the spool to grow; half of it is the mean added delay."""

SHORTEST_BATCH = 0.05
LONGEST_BATCH = 0.25
"""Seconds from one batch to the next while events come in: the more of them are judged together,
the less each costs."""

SHARE = 0.7
"""How much of that time judging may take before batches are given more of it."""

SHORTEST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between two beginnings while judging fails."""


def run(settings: Settings, console_url: str, rules_hash: str) -> None:
    """Process entry: judge until told to end, then everything that the spool still holds.

    Orders and messages have workers of their own, which begin first and go on whatever
    becomes of judging: a person's stop must not wait for a damaged spool.
    """
    stop = begin(settings, "detection")
    state = State(settings.state_file)
    rules = RuleSets(settings.rule_sets_folder).get(rules_hash)
    alerts = AlertDesk(state, {}, settings)
    orders = OrderDesk(state, settings.containment, {}, page=alerts.file)
    in_force(rules, alerts, orders)
    sender = OrderWorker(state, orders, settings.containment)
    outbox = Outbox.of_messages(state, settings, console_url)
    orders.on_wake(sender.wake)
    orders.on_wake(outbox.wake)
    alerts.on_wake(outbox.wake)
    sender.start()
    outbox.start()
    judging = Judging(settings, state, rules, alerts, orders)
    # before the first sign of life, so that it still sees the last one of its predecessor
    SelfWatching(settings, state, alerts, stop).start()
    show_life(state, "detection", judging.vitals, stop)
    judging.run(stop)
    sender.stop()
    outbox.stop()
    state.close()


class Judging:
    """Judges the spool; a fault is an alert, and judging begins anew from the last snapshot."""

    def __init__(
        self, settings: Settings, state: State, rules: RuleSet, alerts: AlertDesk, orders: OrderDesk
    ) -> None:
        self.settings = settings
        self.state = state
        self.rules = rules
        self.alerts = alerts
        self.orders = orders
        self._rule_sets = RuleSets(settings.rule_sets_folder)
        self.watch: Watch | None = None
        self.fault: str | None = None

    def vitals(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Counters, and what is warm or at fault."""
        if self.watch is None:
            return {"judged_events": 0}, {"profiles": [], "fault": self.fault, "rules": None}
        profiles = self.watch.engine.profiles()
        return self.watch.metrics(), {"profiles": profiles, "fault": self.fault, "rules": self.rules.hash}

    def run(self, stop: threading.Event) -> None:
        """The loop, begun again after a fault, ever more slowly while faults go on."""
        pause = SHORTEST_PAUSE
        while True:
            try:
                self.watch = self._build()
                self._judge(self.watch, stop)
                return
            except (Exception, PanicException) as error:
                self.fault = f"judging failed: {type(error).__name__}: {error}"[:500]
                logger().exception("judging failed; it begins again", pause_seconds=pause)
                self._report("judging-failed", "Detection has stopped judging", self.fault, "critical")
            if stop.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)

    def _build(self) -> Watch:
        """The main path's second third, going on from the last snapshot."""
        snapshots = Snapshots(self.settings.data / "snapshots", self.settings.detection.snapshot_seconds)
        start = beginning(snapshots.load(), self.settings.spool_folder)
        # what was not judged yet is judged by the rules of its time
        self.rules_for(str((start.state or {}).get("rules", "")))
        engine = Engine(
            SigmaDetector(self.rules),
            learners(
                self.settings.detection.false_alerts_per_1000_sessions, self.settings.detection.reading_verbs
            ),
        )
        if start.state is not None:
            engine.restore(start.state)
        if start.lost is not None:
            self._report(GAP, GAP_TITLE, start.lost, "critical")
        if snapshots.damaged or engine.started_fresh:
            names = [file.name for file in snapshots.damaged] + list(engine.started_fresh)
            reason = f"could not go on from where they were, and learn anew: {', '.join(names)}"
            self._report("state-lost", "Detectors have lost what they knew", reason, "high")
        return Watch(
            SpoolReader(self.settings.spool_folder, start.position),
            engine,
            self.rules.attribute_keys,
            self.state,
            self.alerts,
            self.orders,
            SilenceProof(self.state, self.orders, self.settings.containment),
            snapshots,
            Positions(self.state),
            self.settings.detection.batch_events,
            self.rules_for,
            self.model_for,
        )

    def rules_for(self, name: str) -> RuleSet | None:
        """The rules with this hash, now in force; None where they are already, or cannot be had."""
        if name in ("", self.rules.hash):
            return None
        try:
            rules = self._rule_sets.get(name)
        except (OSError, ValueError) as error:
            reason = (
                f"the rules {name} of the spool cannot be read: {error}; judging goes on by {self.rules.hash}"
            )
            self._report("rules-refused", "New rules are not in force", reason, "high")
            return None
        self.rules = rules
        in_force(rules, self.alerts, self.orders)
        return rules

    def model_for(self, name: str) -> dict[str, Any] | None:
        """The fitted model with this hash; None where it cannot be had, and then an alert says so."""
        try:
            return Models(self.settings.models_folder).get(name)
        except (OSError, ValueError) as error:
            reason = (
                f"the model {name} of the spool cannot be read: {error}; judging goes on by the one before"
            )
            self._report("model-missing", "A fitted model cannot be read", reason, "medium")
            return None

    def _judge(self, watch: Watch, stop: threading.Event) -> None:
        place = watch.reader.position
        logger().info("judging", segment=place.segment, offset=place.offset)
        while True:
            begun = time.monotonic()
            try:
                judged = watch.step()
            except MissingSegmentError as gap:
                self._report(GAP, GAP_TITLE, told(gap, watch.reader.position), "critical")
                watch.reader.position = gap.resume
                continue
            self.fault = None
            if judged:
                stop.wait(_rest(time.monotonic() - begun))
            elif stop.is_set():
                break
            else:
                stop.wait(IDLE_SECONDS)
        watch.save()

    def _report(self, kind: str, title: str, reason: str, level: str) -> None:
        try:
            with self.state.write() as session:
                self.alerts.file(session, [own_finding(kind, title, reason, level)])
        except SQLAlchemyError:
            logger().exception("the alert about a fault could not be filed", kind=kind)
        self.alerts.wake()


def _rest(spent: float) -> float:
    """Seconds to wait after a batch that took ``spent``: few where it was small, so that alerts are
    quick, and more under load, where the next batch is then larger and an event costs less.
    """
    return max(min(max(spent / SHARE, SHORTEST_BATCH), LONGEST_BATCH) - spent, 0)
