"""Roles of people and scopes of programs: one list of rights for both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

RIGHTS: Mapping[str, str] = {
    "read": "see alerts, agents, sessions and the daemon's state",
    "triage": "change alerts: status, owner, verdict, silences; declare agents; replay dead letters",
    "respond": "order, approve and cancel stops",
    "audit": "see the audit trail",
    "admin": "manage people and keys",
}
"""What a person or a program can be allowed, in words."""

ROLES: Mapping[str, frozenset[str]] = {
    "viewer": frozenset({"read"}),
    "analyst": frozenset({"read", "triage"}),
    "responder": frozenset({"read", "triage", "respond"}),
    "compliance": frozenset({"read", "audit"}),
    "admin": frozenset(RIGHTS),
}
"""Rights by role, the least first."""

ADMIN = "admin"


def strongest(names: Iterable[str]) -> str | None:
    """Of several roles the one with most rights, the later of equals; None where none is known.

    >>> strongest(["viewer", "analyst", "no such role"])
    'analyst'
    """
    given = set(names)
    known = [role for role in ROLES if role in given]
    return max(known, key=lambda role: (len(ROLES[role]), [*ROLES].index(role)), default=None)


def with_right(right: str) -> str:
    """The roles that have a right, for messages."""
    return ", ".join(role for role, rights in ROLES.items() if right in rights)
