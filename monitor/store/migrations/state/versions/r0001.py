"""The first schema.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

APPEND_ONLY = ("alert_changes", "order_changes")


def upgrade() -> None:
    """Create every table, and the triggers that keep history as it was written."""
    _people()
    _alerts()
    _alert_history()
    _orders()
    _order_history()
    _messages()
    _processes()
    for table in APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} BEGIN "
                f"SELECT RAISE(ABORT, '{table} is append-only: {verb} refused; write a new row instead'); END"
            )


def _people() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("agents", sa.JSON(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", WIDE, nullable=False),
        sa.Column("revoked_at", WIDE, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("secret_hash"),
    )
    op.create_table(
        "login_links",
        sa.Column("token_hash", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("created_at", WIDE, nullable=False),
        sa.Column("expires_at", WIDE, nullable=False),
        sa.Column("used_at", WIDE, nullable=True),
        sa.PrimaryKeyConstraint("token_hash"),
    )
    op.create_table(
        "web_sessions",
        sa.Column("token_hash", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("csrf", sa.String(), nullable=False),
        sa.Column("created_at", WIDE, nullable=False),
        sa.Column("expires_at", WIDE, nullable=False),
        sa.PrimaryKeyConstraint("token_hash"),
    )


def _alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("dedup_key", sa.String(), nullable=False),
        sa.Column("detector", sa.String(), nullable=False),
        sa.Column("rule_id", sa.String(), nullable=False),
        sa.Column("rule_version", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("learned", sa.Boolean(), nullable=False),
        sa.Column("replayed", sa.Boolean(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=True),
        sa.Column("agent_id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=True),
        sa.Column("identity", sa.String(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("runbook", sa.JSON(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("event_ids", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=True),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("count", WIDE, nullable=False),
        sa.Column("first_event_at", WIDE, nullable=False),
        sa.Column("last_event_at", WIDE, nullable=False),
        sa.Column("created_at", WIDE, nullable=False),
        sa.Column("updated_at", WIDE, nullable=False),
        sa.Column("version", WIDE, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("alerts_queue", "alerts", ["status", "created_at"])
    op.create_index("ix_alerts_agent_id", "alerts", ["agent_id"])
    op.create_index("ix_alerts_dedup_key", "alerts", ["dedup_key"])
    op.create_index("ix_alerts_rule_id", "alerts", ["rule_id"])
    op.create_index("ix_alerts_session_id", "alerts", ["session_id"])


def _alert_history() -> None:
    op.create_table(
        "alert_findings",
        sa.Column("finding_id", sa.String(), nullable=False),
        sa.Column("alert_id", sa.String(), nullable=False),
        sa.Column("at", WIDE, nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("event_ids", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"]),
        sa.PrimaryKeyConstraint("finding_id"),
    )
    op.create_index("ix_alert_findings_alert_id", "alert_findings", ["alert_id"])
    op.create_table(
        "alert_changes",
        sa.Column("id", WIDE, nullable=False),
        sa.Column("alert_id", sa.String(), nullable=False),
        sa.Column("at", WIDE, nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("field", sa.String(), nullable=False),
        sa.Column("old", sa.String(), nullable=True),
        sa.Column("new", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_alert_changes_alert_id", "alert_changes", ["alert_id"])


def _orders() -> None:
    op.create_table(
        "orders",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("alert_id", sa.String(), nullable=True),
        sa.Column("rule_id", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=True),
        sa.Column("agent_id", sa.String(), nullable=True),
        sa.Column("session_id", sa.String(), nullable=True),
        sa.Column("tool_name", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("initiator_type", sa.String(), nullable=False),
        sa.Column("initiator_id", sa.String(), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("enforcement", sa.JSON(), nullable=False),
        sa.Column("attempts", WIDE, nullable=False),
        sa.Column("next_attempt_at", WIDE, nullable=True),
        sa.Column("poll_url", sa.String(), nullable=True),
        sa.Column("endpoint", sa.String(), nullable=True),
        sa.Column("detected_at", WIDE, nullable=False),
        sa.Column("created_at", WIDE, nullable=False),
        sa.Column("sent_at", WIDE, nullable=True),
        sa.Column("accepted_at", WIDE, nullable=True),
        sa.Column("confirmed_at", WIDE, nullable=True),
        sa.Column("last_action_at", WIDE, nullable=True),
        sa.Column("silent_at", WIDE, nullable=True),
        sa.Column("expires_at", WIDE, nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_index("ix_orders_agent_id", "orders", ["agent_id"])
    op.create_index("ix_orders_alert_id", "orders", ["alert_id"])
    op.create_index("ix_orders_state", "orders", ["state"])


def _order_history() -> None:
    op.create_table(
        "order_changes",
        sa.Column("id", WIDE, nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("at", WIDE, nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("old", sa.String(), nullable=True),
        sa.Column("new", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["orders.request_id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_order_changes_request_id", "order_changes", ["request_id"])


def _messages() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("alert_id", sa.String(), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", WIDE, nullable=False),
        sa.Column("next_attempt_at", WIDE, nullable=False),
        sa.Column("created_at", WIDE, nullable=False),
        sa.Column("sent_at", WIDE, nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_deliveries_alert_id", "deliveries", ["alert_id"])
    op.create_index("ix_deliveries_state", "deliveries", ["state"])
    op.create_table(
        "slack_threads",
        sa.Column("alert_id", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("ts", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"]),
        sa.PrimaryKeyConstraint("alert_id"),
    )
    op.create_table(
        "controls",
        sa.Column("id", WIDE, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("created_at", WIDE, nullable=False),
        sa.Column("spooled_at", WIDE, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )


def _processes() -> None:
    op.create_table(
        "processes",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("pid", WIDE, nullable=False),
        sa.Column("started_at", WIDE, nullable=False),
        sa.Column("beat_at", WIDE, nullable=False),
        sa.Column("segment", WIDE, nullable=False),
        sa.Column("offset", WIDE, nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "positions",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("segment", WIDE, nullable=False),
        sa.Column("offset", WIDE, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
