"""Incidents: alerts of one story, and what people do about it.

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables, and the triggers that keep an incident's log as it was written."""
    op.create_table(
        "incidents",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=True),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=True),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("alerts", WIDE, nullable=False),
        sa.Column("first_event_at", WIDE, nullable=False),
        sa.Column("last_event_at", WIDE, nullable=False),
        sa.Column("created_at", WIDE, nullable=False),
        sa.Column("updated_at", WIDE, nullable=False),
        sa.Column("acknowledged_at", WIDE, nullable=True),
        sa.Column("closed_at", WIDE, nullable=True),
        sa.Column("previous_id", sa.String(), nullable=True),
        sa.Column("merged_into", sa.String(), nullable=True),
        sa.Column("version", WIDE, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("incidents_of_agent", "incidents", ["tenant", "agent_id", "status"])
    op.create_index("incidents_queue", "incidents", ["status", "created_at"])
    op.create_table(
        "incident_entries",
        sa.Column("id", WIDE, autoincrement=True, nullable=False),
        sa.Column("incident_id", sa.String(), nullable=False),
        sa.Column("at", WIDE, nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_incident_entries_incident_id", "incident_entries", ["incident_id"])
    op.add_column("alerts", sa.Column("incident_id", sa.String(), nullable=True))
    op.create_index("ix_alerts_incident_id", "alerts", ["incident_id"])
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER incident_entries_no_{verb.lower()} BEFORE {verb} ON incident_entries BEGIN "
            f"SELECT RAISE(ABORT, 'incident_entries is append-only: {verb} refused; write a new row "
            "instead'); END"
        )
