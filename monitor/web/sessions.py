"""A session as its page and the API tell it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from monitor.store.state import Alert, State
from monitor.web.story import Story, story
from monitor.web.timeline import moment_of

MOST_EVENTS = 5_000
"""Events of a session that are read; the drawing and the pages go no further."""

MOST_ALERTS = 100


def alerts_of(state: State, tenant: str, session_id: str) -> Sequence[Alert]:
    """The session's alerts, the first to fire first."""
    of_it = select(Alert).where(Alert.tenant == tenant, Alert.session_id == session_id)
    with state.read() as db:
        return db.scalars(of_it.order_by(Alert.first_event_at).limit(MOST_ALERTS)).all()


def told(events: Sequence[dict[str, Any]], alerts: Sequence[Alert]) -> Story:
    """The drawing of its calls, with the places where alerts fired and where suspicious values came from."""
    timed = [event | {"moment": moment_of(event)} for event in events]
    flags = [(one.id, one.level, one.title, frozenset(one.event_ids)) for one in alerts]
    return story(timed, flags, [one.evidence for one in alerts])
