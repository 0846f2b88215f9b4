"""Files that are there whole or not at all, whenever the machine stops."""

from __future__ import annotations

import os
from pathlib import Path

DRAFT = ".draft"
"""What the name of an unfinished file ends with."""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file for the owner alone, in place of the one that is there; durable on return.

    Raises OSError where the disk refuses; then the old file stands, and no half of the new one.
    """
    draft = path.with_name(path.name + DRAFT)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)  # on a full disk, half a file would stand in the way of an alert
        raise
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names of files durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
