"""Brings the state database to the newest schema. The supervisor does it before it spawns."""

from __future__ import annotations

import os
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from monitor.store.state import State

SCRIPTS = Path(__file__).parent / "migrations" / "state"


class MigrationError(Exception):
    """A database cannot be brought to this version's schema; the message names the remedy."""


def migrate_state(file: Path) -> list[str]:
    """Apply what is missing, in one transaction; the revisions applied, oldest first.

    Creates the file, readable and writable by its owner only. Applied again, it changes
    nothing and returns an empty list. Raises MigrationError where a newer version of
    Watchkeeper has written the file.
    """
    _own(file)
    config = Config()
    # a percent sign would be read as interpolation
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    state = State(file)
    try:
        with state.schema_change() as connection:
            before = MigrationContext.configure(connection).get_current_revision()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError:
        raise MigrationError(
            f"{file} has the schema {before!r}, which this version does not know; "
            "run the newer version of Watchkeeper that wrote it, or restore an older backup"
        ) from None
    finally:
        state.close()
    missing = scripts.iterate_revisions("head", before or "base")
    return [script.revision for script in missing][::-1]


def _own(file: Path) -> None:
    """Make the file its owner's alone; SQLite gives its -wal and -shm files the same mode."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
