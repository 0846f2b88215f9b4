"""Space put by in the data folder, so that on a full disk the daemon can still start and stop agents."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

RESERVE_BYTES = 16 << 20
"""Enough for the state database to take orders and alerts until somebody frees some space."""


def release(data: Path) -> None:
    """Give the space free: what starts now may need it."""
    (data / "reserve").unlink(missing_ok=True)


def put_by(data: Path) -> None:
    """Take the space again; a disk that runs short is left what it has."""
    file = data / "reserve"
    with contextlib.suppress(OSError):
        disk = os.statvfs(data)
        if disk.f_bavail * disk.f_frsize < 4 * RESERVE_BYTES:
            return
        with file.open("wb") as reserve:
            try:
                os.posix_fallocate(reserve.fileno(), 0, RESERVE_BYTES)
            except OSError:
                file.unlink()
