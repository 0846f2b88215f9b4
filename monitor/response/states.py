"""The states of an order and the moves between them (KILL-SWITCH, States)."""

from __future__ import annotations

FIRST = frozenset({"requested", "held", "shadow"})
"""States in which an order may begin. ``shadow``: noted only, nothing is ever sent."""

LEGAL: dict[str, frozenset[str]] = {
    "shadow": frozenset(),
    "held": frozenset({"requested", "cancelled", "expired"}),
    "requested": frozenset({"sent", "cancelled", "expired", "failed"}),
    "sent": frozenset({"accepted", "confirmed", "partial", "unconfirmed", "failed", "expired"}),
    "accepted": frozenset({"sent", "confirmed", "partial", "unconfirmed", "failed", "expired"}),
    "confirmed": frozenset({"contained", "failed"}),
    "contained": frozenset({"failed"}),
    "partial": frozenset(),
    "unconfirmed": frozenset(),
    "failed": frozenset(),
    "expired": frozenset(),
    "cancelled": frozenset(),
}

IN_FLIGHT = frozenset({"requested", "sent", "accepted"})
"""The worker still has something to do."""

PROVABLE = frozenset({"confirmed", "contained"})
"""The endpoint has confirmed; what the target does afterwards counts."""

WITHOUT_EFFECT = frozenset({"shadow", "failed", "expired"})
"""Ends after which the same alert may order again, once the cool-down has passed.

Not after ``partial`` and ``unconfirmed``, where something did happen and a human has been
paged, and not after ``cancelled``, which is a human's no.
"""

NEEDS_HUMAN = frozenset({"held", "partial", "unconfirmed", "failed", "expired"})
"""States that page somebody."""


class OrderError(Exception):
    """What was asked of an order cannot be done; the message names the remedy."""


class IllegalMove(OrderError):  # noqa: N818
    """No such move between states."""

    def __init__(self, request_id: str, old: str | None, new: str) -> None:
        allowed = ", ".join(sorted(LEGAL[old] if old else FIRST)) or "nothing"
        super().__init__(f"order {request_id} is {old or 'new'}; it cannot become {new}, only {allowed}")
