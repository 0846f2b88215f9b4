"""Where reading of a file stands, and how the file is known again after a rotation or a restart."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import msgspec

from monitor.durable import write_whole

HEAD_BYTES = 4096
"""A file is told by its first line, of which this much counts."""

TAIL_BYTES = 1024
"""What lies this far before the offset must be the same for reading to go on from there."""

KEPT_DAYS = 30
"""A file that was not seen for so long is forgotten."""

DAY = 86_400


class Place(msgspec.Struct, kw_only=True):
    """How far a file's lines have been answered for.

    ``offset`` is the end of the last such line. ``head`` and ``tail`` are fingerprints of the
    first ``head_size`` bytes and of those just before the offset; ``head`` is empty until there
    is a first line. ``seen`` is the wall clock in seconds, for forgetting alone.
    """

    path: str
    device: int
    inode: int
    offset: int = 0
    head: str = ""
    head_size: int = 0
    tail: str = ""
    seen: int = 0

    def is_seen(self) -> None:
        """The file is there; it is noted once a day, so that a file at rest writes nothing."""
        if (moment := int(time.time())) - self.seen > DAY:
            self.seen = moment

    def holds(self, descriptor: int) -> bool:
        """Whether the open file is, up to the offset, the one that was read."""
        return self.begins(descriptor) and (not self.offset or self.tail == tail_of(descriptor, self.offset))

    def begins(self, descriptor: int) -> bool:
        """Whether the open file has the same first line."""
        return not self.head or self.head == fingerprint(os.pread(descriptor, self.head_size, 0))

    def move(self, offset: int, tail: str) -> None:
        """What lies before ``offset``, with that fingerprint of its end, has been answered for."""
        self.offset, self.tail, self.seen = offset, tail, int(time.time())


def fingerprint(data: bytes) -> str:
    """A short name for bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def tail_of(descriptor: int, offset: int) -> str:
    """The fingerprint of what lies before ``offset``; shorter than it should be, it fits nothing."""
    size = min(offset, TAIL_BYTES)
    return fingerprint(os.pread(descriptor, size, offset - size))


def head_of(descriptor: int, last: bool = False) -> tuple[str, int]:
    """Fingerprint and size of the first line that is not blank; empty while it is not complete.

    With ``last`` it is taken as it is, for nothing will follow.
    """
    data = os.pread(descriptor, HEAD_BYTES, 0)
    end = data.find(b"\n", len(data) - len(data.lstrip()))
    if end < 0 and len(data) < HEAD_BYTES and not last:
        return "", 0
    size = end if end >= 0 else len(data)
    return fingerprint(data[:size]), size


class _Saved(msgspec.Struct):
    version: int
    places: list[Place]
    former: list[Place]


class FollowedElsewhere(Exception):  # noqa: N818 - it states a fact, and the CLI shows it as one
    """Another process keeps its places in this file."""


class PlaceFile:
    """The places on disk: written whole or not at all, and held by one process at a time."""

    VERSION = 1

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._written = b""
        self._lock: IO[bytes] = file.with_suffix(file.suffix + ".lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise FollowedElsewhere(
                f"another `watchkeeper follow` uses {file}; end it, or give this one its own --state FILE"
            ) from None

    def load(self) -> tuple[list[Place], list[Place]]:
        """Places of files, and of what files were before they were cut or replaced.

        Raises OSError where the file cannot be used: to begin anew would send everything again.
        """
        try:
            saved = msgspec.json.decode(self.file.read_bytes(), type=_Saved)
        except FileNotFoundError:
            return [], []
        except msgspec.DecodeError as error:
            raise OSError(f"{self.file} is damaged ({error}); remove it to read every file anew") from None
        if saved.version != self.VERSION:
            raise OSError(f"{self.file} is of version {saved.version}; remove it to read every file anew")
        return saved.places, saved.former

    def save(self, places: Iterable[Place], former: Iterable[Place]) -> None:
        """Keep the places, if they have changed; durable on return.

        Raises OSError where the disk refuses.
        """
        oldest = int(time.time()) - KEPT_DAYS * DAY
        saved = _Saved(self.VERSION, [one for one in places if one.seen >= oldest], [*former])
        data = msgspec.json.encode(saved)
        if data == self._written:
            return
        write_whole(self.file, data)
        self._written = data

    def close(self) -> None:
        """Let others use it."""
        self._lock.close()
