"""Models fitted on stored sessions: asked of ClickHouse, kept by hash, recorded for the spool."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import select

from detectors.session_outlier import SessionOutlier
from monitor.alerting.alerts import AlertDesk
from monitor.alerting.own import own_finding
from monitor.events import arrow_batch
from monitor.refit import FEWEST_SESSIONS, QUERY, refit, when_due
from monitor.settings import Settings
from monitor.store.clickhouse import EventStore, placed
from monitor.store.models import Models
from monitor.store.queries import Readers
from monitor.store.state import Alert, Control, State
from tests.builders import START
from tests.detectors.streams import in_order, run, session, sessions

MINUTE = 60.0
COUNT = FEWEST_SESSIONS + 20


def recorded(count: int = COUNT) -> list[Any]:
    """Sessions of the last days, one of which is still open, another too short to have a name."""
    shift = datetime.now(UTC) - timedelta(days=10) - START
    told = [
        *sessions("invoice-agent", count, every=5 * MINUTE, refused=0.2),
        *sessions("other", 5, tenant="small"),
    ]
    for one in told:
        one.timestamp += shift
        one.ingested_at = one.timestamp
    now = datetime.now(UTC)
    for one in session("open", ["book"], 0, Random(1)):
        one.timestamp = one.ingested_at = now
        told.append(one)
    return told


def stored(store: EventStore, events: list[Any]) -> Any:
    store.insert(placed(pa.table(arrow_batch(events)), 1), "refit")
    return store.connect()


def test_the_figures_of_the_store_are_those_of_the_stream(store: EventStore) -> None:
    events = recorded(40)
    told: dict[str, list[tuple[float, ...]]] = {}
    detector = SessionOutlier()
    detector.collect = lambda tenant, figures: told.setdefault(tenant, []).append(tuple(figures))
    run(detector, in_order(one for one in events if one.session_id != "open"))
    client = stored(store, events)
    found: dict[str, list[tuple[float, ...]]] = {}
    for tenant, _, *figures in client.query(QUERY).result_rows:
        found.setdefault(tenant, []).append(tuple(map(float, figures)))
    client.close()
    assert {tenant: sorted(rows) for tenant, rows in found.items()} == {
        tenant: sorted(rows) for tenant, rows in told.items()
    }


def test_a_tenant_with_sessions_enough_gets_a_model_that_the_spool_will_name(
    store: EventStore, settings: Settings, state: State
) -> None:
    client = stored(store, recorded())
    assert refit(settings, state, lambda sql: client.query(sql).result_rows) == 1
    client.close()
    with state.read() as reading:
        [control] = reading.scalars(select(Control)).all()
        assert (control.kind, control.payload["tenant"]) == ("model", "default")
        assert control.payload["sessions"] == COUNT
        assert control.spooled_at is None
        name = control.payload["hash"]
    model = Models(settings.models_folder).get(name)
    detector = SessionOutlier()
    detector.use("default", model)
    assert detector.state()["models"][0][0] == "default"


def test_sessions_with_an_alert_are_not_fitted_on(
    embedded: EventStore, settings: Settings, state: State
) -> None:
    client = stored(embedded, recorded())
    with state.write() as writing:
        for number in range(5):
            writing.add(alert(f"invoice-agent-0-{number}", None))
        writing.add(alert("invoice-agent-0-7", "false_positive"))
    refit(settings, state, lambda sql: client.query(sql).result_rows)
    client.close()
    with state.read() as reading:
        assert reading.scalars(select(Control)).one().payload["sessions"] == COUNT - 5


def test_the_job_fits_when_the_latest_model_is_old_and_says_when_it_cannot(
    embedded: EventStore, settings: Settings, state: State
) -> None:
    stored(embedded, recorded()).close()
    readers, desk = Readers(embedded), AlertDesk(state, {}, settings)
    for _ in range(2):
        when_due(settings, state, readers, desk)
    assert len(list(settings.models_folder.glob("*.msgpack"))) == 1
    next(settings.models_folder.glob("*.msgpack")).unlink()
    settings.models_folder.rmdir()
    settings.models_folder.write_text("in the way")
    when_due(settings, state, readers, desk)
    readers.close()
    with state.read() as reading:
        assert reading.scalars(select(Alert.title)).all() == ["No model was fitted"]


def test_a_model_that_was_altered_is_refused(settings: Settings) -> None:
    models = Models(settings.models_folder)
    name = models.put(b"\x80")
    assert models.get(name) == {}
    Path(settings.models_folder / f"{name}.msgpack").write_bytes(b"\x81")
    with pytest.raises(ValueError, match="damaged"):
        models.get(name)
    with pytest.raises(OSError, match="No such file"):
        models.get("../state")


def alert(session_id: str, verdict: str | None) -> Alert:
    finding = own_finding("x", "x", "x", "medium")
    moment = 1
    return Alert(
        id=f"a_{session_id}", dedup_key=session_id, detector="sigma", rule_id="r", rule_version="1",
        title="t", reason="r", level="high", learned=False, replayed=False, tenant="default",
        environment=None,
        agent_id="invoice-agent", session_id=session_id, identity=finding.identity, tags=[], runbook=[],
        evidence={}, event_ids=[], status="new", verdict=verdict, owner=None, count=1, first_event_at=moment,
        last_event_at=moment, created_at=moment, updated_at=moment,
    )  # fmt: skip
