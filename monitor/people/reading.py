"""The audit trail, read back: filtered, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from monitor.store.state import AuditEntry


@dataclass(frozen=True)
class Asked:
    """What somebody asks of the trail; None does not narrow. ``action`` is one, or what it begins with.

    ``since`` and ``until`` are in microseconds, ``before`` is an entry's id.
    """

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    since: int | None = None
    until: int | None = None
    before: int | None = None


def plain(entry: AuditEntry) -> dict[str, Any]:
    """An entry as plain data; ``at`` in microseconds since the epoch."""
    return {column.key: getattr(entry, column.key) for column in AuditEntry.__table__.columns}


def entries(session: Session, asked: Asked, limit: int) -> list[AuditEntry]:
    """Entries, newest first, at most ``limit``."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if asked.actor:
        query = query.where(AuditEntry.actor == asked.actor)
    if asked.action:
        query = query.where(AuditEntry.action.startswith(asked.action, autoescape=True))
    if asked.subject:
        query = query.where(AuditEntry.subject == asked.subject)
    if asked.since is not None:
        query = query.where(AuditEntry.at >= asked.since)
    if asked.until is not None:
        query = query.where(AuditEntry.at < asked.until)
    if asked.before is not None:
        query = query.where(AuditEntry.id < asked.before)
    return list(session.scalars(query))
