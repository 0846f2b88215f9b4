"""Fitted models, by hash: a spool is judged again by the models of its time."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import msgspec

from monitor.durable import write_whole

KEPT = 200
"""Model files that are kept; the spool reaches back no further than a few of them."""


class Models:
    """Model files in a folder, one each, never changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, raw: bytes) -> str:
        """Keep a model, durably; its hash. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = hashlib.sha256(raw).hexdigest()[:32]
        write_whole(self._path(name), raw)
        for old in sorted(self.folder.glob("*.msgpack"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
        return name

    def get(self, name: str) -> dict[str, Any]:
        """A model by its hash. Raises OSError or ValueError where it cannot be read."""
        raw = self._path(name).read_bytes()
        if hashlib.sha256(raw).hexdigest()[:32] != name:
            raise ValueError(f"the model {name} is damaged")
        found: dict[str, Any] = msgspec.msgpack.decode(raw)
        return found

    def age(self) -> float:
        """Seconds since the latest was written; infinite where there is none."""
        times = [file.stat().st_mtime for file in self.folder.glob("*.msgpack")]
        return time.time() - max(times) if times else float("inf")

    def _path(self, name: str) -> Path:
        return self.folder / f"{Path(name).name}.msgpack"
