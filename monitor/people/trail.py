"""The audit trail: who did what, when, from where and why. Append-only, by trigger.

An act and its entry are one transaction: what is not in the trail did not happen.
"""

from __future__ import annotations

import getpass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from monitor.store.state import AuditEntry, State, now

CONTENT_READ = "content.read"

AGAIN = 10 * 60_000_000
"""Who reads the same thing again within ten minutes has read it once."""


def entry(
    actor: str,
    action: str,
    subject: str,
    *,
    role: str | None = None,
    reason: str = "",
    address: str | None = None,
    detail: dict[str, Any] | None = None,
) -> AuditEntry:
    """An entry of now; ``subject`` is what was acted on, as ``kind:id``."""
    return AuditEntry(
        at=now(),
        actor=actor,
        role=role,
        action=action,
        subject=subject,
        reason=reason,
        address=address,
        detail=detail or {},
    )


def of_this_machine() -> str:
    """The actor behind a command on the daemon's own machine."""
    try:
        return f"shell:{getpass.getuser()}"
    except (OSError, KeyError):
        return "shell"


def read_lately(session: Session, actor: str, subject: str) -> bool:
    """Whether the trail says already that ``actor`` has just read the content of ``subject``."""
    found = session.scalar(
        select(AuditEntry.id)
        .where(
            AuditEntry.subject == subject,
            AuditEntry.actor == actor,
            AuditEntry.action == CONTENT_READ,
            AuditEntry.at > now() - AGAIN,
        )
        .limit(1)
    )
    return found is not None


def note(state: State, *entries: AuditEntry) -> None:
    """Entries about what changes no table of ours."""
    with state.write() as session:
        session.add_all(entries)
