"""People with roles, the audit trail, keys that expire.

Revision ID: 0002
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables; ``operate`` of a key becomes ``triage`` and ``respond``."""
    op.create_table(
        "people",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("display_name", sa.String(), nullable=False),
        sa.Column("email", sa.String(), nullable=True),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=True),
        sa.Column("issuer", sa.String(), nullable=True),
        sa.Column("subject", sa.String(), nullable=True),
        sa.Column("created_at", WIDE, nullable=False),
        sa.Column("disabled_at", WIDE, nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("people_identity", "people", ["issuer", "subject"], unique=True)
    op.create_table(
        "sign_in_failures",
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("failures", WIDE, nullable=False),
        sa.Column("last_at", WIDE, nullable=False),
        sa.Column("until", WIDE, nullable=False),
        sa.PrimaryKeyConstraint("place"),
    )
    op.create_table(
        "audit",
        sa.Column("id", WIDE, nullable=False, autoincrement=True),
        sa.Column("at", WIDE, nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    for column in ("at", "actor", "subject"):
        op.create_index(f"ix_audit_{column}", "audit", [column])
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit BEGIN "
            f"SELECT RAISE(ABORT, 'audit is append-only: {verb} refused; write a new row instead'); END"
        )
    op.add_column("api_keys", sa.Column("expires_at", WIDE, nullable=True))
    keys = op.get_bind().execute(sa.text("SELECT id, scopes FROM api_keys")).all()
    for key_id, scopes in keys:
        rights = json.loads(scopes)
        if "operate" in rights:
            new = [*(one for one in rights if one != "operate"), "triage", "respond"]
            op.execute(
                sa.text("UPDATE api_keys SET scopes = :new WHERE id = :id").bindparams(
                    new=json.dumps(new), id=key_id
                )
            )
    # sessions and links of before have no person behind them
    op.execute("DELETE FROM web_sessions")
    op.execute("DELETE FROM login_links")
