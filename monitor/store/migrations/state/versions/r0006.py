"""Indexes for the queue: its facets and histogram from one index, and the newest alerts from another.

Revision ID: 0006
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

FACETS = (
    *("status", "level", "agent_id", "rule_id", "detector"),
    *("last_event_at", "id", "created_at", "title"),
)


def upgrade() -> None:
    """Create them."""
    op.create_index("alerts_facets", "alerts", list(FACETS))
    op.create_index("alerts_made", "alerts", ["created_at", "id"])
