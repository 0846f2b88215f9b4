"""Builders that keep tests short: an event, a frame, a session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl

from detectors.base import Batch
from monitor.events import Record, arrow_batch
from monitor.frames import to_frame

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def event(event_type: str = "tool.requested", at: float = 0.0, **columns: Any) -> Any:
    """One checked record, ``at`` seconds after START; any column by name."""
    agent_id = columns.pop("agent_id", "invoice-agent")
    moment = START + timedelta(seconds=at)
    columns.setdefault("tenant", "default")
    columns.setdefault("identity", "declared")
    columns.setdefault("session_id", "s1")
    known = {
        "event_type": event_type,
        "agent_id": agent_id,
        "timestamp": moment,
        "event_id": f"{columns['session_id']}-{event_type}-{at:g}",
    }
    return msgspec.convert({**known, **columns}, Record)


def frame(*events: Any, attribute_keys: tuple[str, ...] = ()) -> pl.DataFrame:
    """Records as the frame that detectors read."""
    return to_frame(arrow_batch(events), attribute_keys)


def batch(*events: Any, attribute_keys: tuple[str, ...] = ()) -> Batch:
    """Records as one batch."""
    return Batch(frame(*events, attribute_keys=attribute_keys))
