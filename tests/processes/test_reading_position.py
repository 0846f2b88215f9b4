"""How far detection lets the spool be trimmed, also when nothing new arrives."""

from __future__ import annotations

import threading
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


def test_all_that_is_judged_may_go_although_a_full_spool_takes_in_nothing_new(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data", detection=DetectionSettings(snapshot_seconds=0.05))
    settings.data.mkdir()
    migrate_state(settings.state_file)
    state = State(settings.state_file)
    writer = SpoolWriter(settings.spool_folder)
    for number in range(5):
        record = event(at=number, ingested_at=event().timestamp)
        writer.append([(Entry.EVENTS, to_bytes(arrow_batch([record])))])
        writer.seal()
    rules = load_rules(settings.detection.rules, rule_fields())
    judging = Judging(
        settings, state, rules, AlertDesk(state, {}, settings), OrderDesk(state, settings.containment, {})
    )
    stop = threading.Event()
    thread = threading.Thread(target=judging.run, args=(stop,))
    thread.start()
    try:
        until(lambda: Positions(state).load("detection").segment == writer.number, "the spool let go")
        saved = sorted((settings.data / "snapshots").iterdir())
        assert not stop.wait(0.5)
        assert sorted((settings.data / "snapshots").iterdir()) == saved
    finally:
        stop.set()
        thread.join()
        writer.close()
        state.close()
