"""Isolation forests fitted anew, by tenant, on the sessions that ClickHouse holds.

The figures of a session are asked for by SQL; the fit runs in a process of its own that gives way to
everything else. A model is a file named by its hash and a record in the spool that names it, so that
what is judged again is judged by the model of its time.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from clickhouse_connect.driver.exceptions import ClickHouseError
from numpy.typing import NDArray
from sqlalchemy import select

from monitor.alerting.alerts import AlertDesk
from monitor.alerting.own import own_finding
from monitor.settings import Settings
from monitor.store.fault import StoreError
from monitor.store.models import Models
from monitor.store.queries import Readers
from monitor.store.state import Alert, Control, State, now
from monitor.telemetry import logger

DAYS = 30
"""Days of history that a model rests on."""

MOST_SESSIONS = 20_000
FEWEST_SESSIONS = 200
"""Sessions of a tenant; with fewer there is no model."""

NICENESS = 10

PATIENCE_SECONDS = 600.0
QUERY_SECONDS = 300

FAILURES = (StoreError, ClickHouseError, OSError, RuntimeError, subprocess.TimeoutExpired)

QUERY = f"""
SELECT tenant, session_id,
       countIf(event_type = 'tool.requested'), countIf(event_type = 'tool.executed'),
       least(uniqExact(tool_name), 64), countIf(event_type = 'model.invoked'),
       countIf(outcome IN ('failure', 'timeout')), countIf(outcome = 'blocked' OR policy_decision = 'deny'),
       countIf(event_type IN ('tool.approved', 'human.reviewed')),
       sumIf(greatest(ifNull(output_tokens, 0), 0), event_type = 'model.invoked'),
       sumIf(greatest(ifNull(input_tokens, 0), 0), event_type = 'model.invoked'),
       sumIf(lengthUTF8(ifNull(tool_args, '')), event_type = 'tool.requested'),
       sumIf(lengthUTF8(ifNull(tool_result, '')), event_type = 'tool.executed')
FROM events
WHERE ingested_at >= now() - INTERVAL {DAYS} DAY AND session_id != '' AND agent_id != ''
      AND ifNull(revision, 0) = 0
      AND event_type NOT IN ('telemetry.unmapped', 'change.declared')
GROUP BY tenant, agent_id, session_id
HAVING max(ingested_at) < now() - INTERVAL 30 MINUTE
ORDER BY sipHash64(session_id)
LIMIT {MOST_SESSIONS} BY tenant
"""  # noqa: S608 - only numbers of this module are put in

Query = Callable[[str], Sequence[Sequence[Any]]]


def refit(settings: Settings, state: State, query: Query) -> int:
    """Fit a model for each tenant with sessions enough and put it into force; how many that were.

    Raises what ``query`` raises, OSError where a model cannot be kept, RuntimeError where the fit fails.
    """
    models = Models(settings.models_folder)
    count = 0
    for tenant, figures in _by_tenant(query(QUERY), _suspect(state)):
        if len(figures) < FEWEST_SESSIONS:
            continue
        name = models.put(_fitted(figures))
        with state.write() as session:
            session.add(
                Control(
                    kind="model",
                    payload={"hash": name, "tenant": tenant, "sessions": len(figures)},
                    actor="system:refit",
                    created_at=now(),
                )
            )
        logger().info("a model is fitted anew", tenant=tenant, sessions=len(figures), model=name)
        count += 1
    return count


def when_due(settings: Settings, state: State, readers: Readers, alerts: AlertDesk) -> None:
    """The scheduled job: fit anew where the latest model is older than ``detection.refit_hours``.

    A failure is an alert of Watchkeeper itself, and what was in force stays.
    """
    if Models(settings.models_folder).age() < settings.detection.refit_hours * 3_600:
        return
    try:
        with readers.alone(QUERY_SECONDS) as client:
            refit(settings, state, lambda sql: client.query(sql).result_rows)
    except FAILURES as error:
        logger().error("no model was fitted", why=str(error)[:500])
        reason = f"the sessions of the last {DAYS} days were not fitted: {error}"[:500]
        with state.write() as session:
            alerts.file(session, [own_finding("refit-failed", "No model was fitted", reason, "medium")])
        alerts.wake()


def _suspect(state: State) -> set[tuple[str, str]]:
    """Tenant and session of every alert that nobody has called a false alarm."""
    with state.read() as session:
        rows = session.execute(
            select(Alert.tenant, Alert.session_id).where(
                Alert.session_id.is_not(None), Alert.verdict.is_distinct_from("false_positive")
            )
        )
        return {(tenant, str(name)) for tenant, name in rows}


def _by_tenant(
    rows: Sequence[Sequence[Any]], suspect: set[tuple[str, str]]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    found: dict[str, list[Sequence[Any]]] = {}
    for tenant, session_id, *figures in rows:
        if (tenant, session_id) not in suspect:
            found.setdefault(tenant or "default", []).append(figures)
    for tenant, told in sorted(found.items()):
        yield tenant, np.array(told, dtype=float)


def _fitted(figures: NDArray[np.float64]) -> bytes:
    """The model as bytes, from a process of its own."""
    given = io.BytesIO()
    np.save(given, figures, allow_pickle=False)
    done = subprocess.run(
        [sys.executable, "-m", "monitor.refit"],
        input=given.getvalue(),
        capture_output=True,
        check=False,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"the fit failed: {said[-1] if said else 'it ended without a word'}")
    return done.stdout


if __name__ == "__main__":
    import msgspec

    from detectors.session_outlier import fitted

    os.nice(NICENESS)
    told = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    sys.stdout.buffer.write(msgspec.msgpack.encode(fitted(told).state()))
