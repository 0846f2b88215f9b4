"""Dead letters: what was refused, why, and as much of it as is needed to see why."""

from __future__ import annotations

import base64
import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import msgspec

MAX_RAW_BYTES = 8 << 10
"""A letter keeps at most this much of what was refused."""

FILES = 8
"""The space is divided among this many files; the oldest goes when the newest is full."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One refused record. ``at`` is microseconds since the epoch; ``raw`` may be cut.

    ``encoding`` is ``base64`` where the raw bytes are not UTF-8, ``size`` their number before the cut.
    """

    at: int
    key_id: str
    tenant: str
    index: int
    reason: str
    raw: str | None = None
    encoding: str = "utf-8"
    size: int = 0

    @classmethod
    def of(cls, at: int, key_id: str, tenant: str, index: int, reason: str, raw: bytes | None) -> DeadLetter:
        """A letter over ``raw``, cut and made printable."""
        kept = (raw or b"")[:MAX_RAW_BYTES]
        try:
            text, encoding = kept.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(kept).decode(), "base64"
        return cls(
            at=at,
            key_id=key_id,
            tenant=tenant,
            index=index,
            reason=reason,
            raw=None if raw is None else text,
            encoding=encoding,
            size=len(raw or b""),
        )


class DeadLetters:
    """Append-only NDJSON files of bounded size together. One process writes."""

    def __init__(self, folder: Path, max_bytes: int = 64 << 20) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._counts = {path: path.read_bytes().count(b"\n") for path in self._files()}
        # A torn last line stays alone in its file: each start begins a new one.
        self._begin()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.ndjson"))

    def _begin(self) -> None:
        present = self._files()
        number = int(present[-1].stem) + 1 if present else 1
        self._path = self.folder / f"{number:012d}.ndjson"
        self._size = 0

    def count(self) -> int:
        """How many letters are kept."""
        return sum(self._counts.values())

    def append(self, letters: Iterable[DeadLetter]) -> None:
        """Keep the letters; they are durable on return. Raises OSError where the disk refuses."""
        lines = [msgspec.json.encode(letter) + b"\n" for letter in letters]
        if not lines:
            return
        data = b"".join(lines)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self._size += len(data)
        self._counts[self._path] = self._counts.get(self._path, 0) + len(lines)
        if self._size >= self.max_bytes // FILES:
            self._begin()
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        present = self._files()
        size = sum(path.stat().st_size for path in present)
        for path in present:
            if size <= self.max_bytes:
                return
            size -= path.stat().st_size
            path.unlink()
            self._counts.pop(path, None)

    def tail(self, n: int) -> list[DeadLetter]:
        """The newest ``n`` letters, oldest of them first."""
        newest: deque[DeadLetter] = deque()
        for path in reversed(self._files()):
            for line in reversed(path.read_bytes().split(b"\n")[:-1]):
                if len(newest) == n:
                    return list(newest)
                newest.appendleft(msgspec.json.decode(line, type=DeadLetter))
        return list(newest)
