"""Alembic's entry: runs on the connection that ``monitor.store.migrate`` hands over."""

from __future__ import annotations

from alembic import context

from monitor.store.state import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite's DDL is transactional once BEGIN is ours: a broken migration leaves nothing behind
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
