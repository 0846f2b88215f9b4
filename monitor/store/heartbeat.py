"""A process's sign of life, for the status page and the supervisor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from monitor.sources.spool import Position
from monitor.store.state import Process, State, now


def former_callers(state: State) -> list[dict[str, Any]]:
    """What the edge before this one said of its senders; empty at the first start."""
    with state.read() as session:
        row = session.get(Process, "edge")
        return list(row.detail.get("callers", ())) if row is not None else []


def beat(
    state: State,
    name: str,
    metrics: Mapping[str, Any],
    detail: Mapping[str, Any],
    position: Position | None = None,
) -> None:
    """Say that the calling process, known as ``name``, lives; counters and detail are plain JSON values.

    ``started_at`` is the first beat of this process id.
    """
    with state.write() as session:
        row = session.get(Process, name)
        if row is None or row.pid != os.getpid():
            row = session.merge(Process(name=name, pid=os.getpid(), started_at=now(), segment=0, offset=0))
        row.beat_at = now()
        row.metrics = dict(metrics)
        row.detail = dict(detail)
        if position is not None:
            row.segment, row.offset = position
