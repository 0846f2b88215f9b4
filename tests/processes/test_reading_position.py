"""How far detection lets the spool be trimmed, also when nothing new arrives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detectors.sigma import load_rules
from monitor.alerting.alerts import AlertDesk
from monitor.events import arrow_batch, rule_fields
from monitor.frames import to_bytes
from monitor.processes.detection import Judging
from monitor.response.orders import OrderDesk
from monitor.settings import DetectionSettings, Settings
from monitor.sources.spool import Entry, SpoolWriter
from monitor.store.migrate import migrate_state
from monitor.store.positions import Positions
from monitor.store.state import State
from tests.builders import event
from tests.daemons import until


@contextmanager
def judging(data: Path) -> Iterator[tuple[SpoolWriter, State]]:
    """Detection at work over a spool that the test writes."""
    settings = Settings(data=data, detection=DetectionSettings(snapshot_seconds=0.05))
    settings.data.mkdir()
    migrate_state(settings.state_file)
    state = State(settings.state_file)
    writer = SpoolWriter(settings.spool_folder)
    rules = load_rules(settings.detection.rules, rule_fields())
    alerts, orders = AlertDesk(state, {}, settings), OrderDesk(state, settings.containment, {})
    stop = threading.Event()
    thread = threading.Thread(target=Judging(settings, state, rules, alerts, orders).run, args=(stop,))
    thread.start()
    try:
        yield writer, state
    finally:
        stop.set()
        thread.join()
        writer.close()
        state.close()


def test_all_that_is_judged_may_go_although_a_full_spool_takes_in_nothing_new(tmp_path: Path) -> None:
    with judging(tmp_path / "data") as (writer, state):
        for number in range(5):
            record = event(at=number, ingested_at=event().timestamp)
            writer.append([(Entry.EVENTS, to_bytes(arrow_batch([record])))])
            writer.seal()
        snapshots = tmp_path / "data" / "snapshots"
        until(lambda: Positions(state).load("detection").segment == writer.number, "the spool let go")
        saved = sorted(snapshots.iterdir())
        assert not threading.Event().wait(0.5)
        assert sorted(snapshots.iterdir()) == saved


def test_segments_without_events_may_go_too(tmp_path: Path) -> None:
    with judging(tmp_path / "data") as (writer, state):
        for number in range(3):
            writer.append([(Entry.TICK, (number * 10**6).to_bytes(8, "little", signed=True))])
            writer.seal()
            until(
                lambda: Positions(state).load("detection").segment == writer.number,
                "the spool may drop what was read",
            )
