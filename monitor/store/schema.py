"""Numbered ClickHouse migrations: each is applied once, in order, and never edited afterwards."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from clickhouse_connect.driver import Client

from monitor.store.migrate import MigrationError

SCRIPTS = Path(__file__).parent / "migrations" / "clickhouse"

APPLIED = """
CREATE TABLE IF NOT EXISTS migrations
(name String, sha256 String, applied_at DateTime64(6, 'UTC') DEFAULT now64(6))
ENGINE = MergeTree ORDER BY name
"""


def migrate_events(client: Client) -> list[str]:
    """Apply what is missing to the client's database; the names applied, in order.

    Every statement says IF NOT EXISTS or the like, so a migration that broke off in the
    middle is simply run again. Raises MigrationError where an applied migration is unknown
    here or reads otherwise than it did.
    """
    client.command(APPLIED)
    rows = client.query("SELECT name, sha256 FROM migrations").result_rows
    applied: dict[str, str] = {row[0]: row[1] for row in rows}
    scripts = {path.stem: path.read_text() for path in sorted(SCRIPTS.glob("*.sql"))}
    if unknown := sorted(set(applied) - set(scripts)):
        raise MigrationError(
            f"the event store has migrations that this version does not know: {', '.join(unknown)}; "
            "run the newer version of Watchkeeper that wrote them"
        )
    fresh = []
    for name, text in scripts.items():
        digest = hashlib.sha256(text.encode()).hexdigest()
        if name not in applied:
            for statement in statements(text):
                client.command(statement)
            client.insert("migrations", [[name, digest]], column_names=["name", "sha256"])
            fresh.append(name)
        elif applied[name] != digest:
            raise MigrationError(
                f"migration {name} was edited after it was applied; put it back and add a new one"
            )
    return fresh


def statements(text: str) -> list[str]:
    """Split a script into statements: comment lines taken out, split where a line ends in ``;``."""
    code = re.sub(r"^\s*--.*\n", "", text, flags=re.MULTILINE)
    return [part.strip() for part in re.split(r";\s*$", code, flags=re.MULTILINE) if part.strip()]
