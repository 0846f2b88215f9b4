"""Detector state on disk, so that a restart goes on from there and replays only what came after."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from monitor.durable import write_whole
from monitor.sources.spool import Position
from monitor.telemetry import logger

VERSION = 1
KEPT = 2
SUFFIX = ".snapshot"


class Stateful(Protocol):
    """What can be saved: plain data that msgpack can hold."""

    def state(self) -> Mapping[str, Any]:
        """Return everything needed to go on later."""
        ...


class _Envelope(msgspec.Struct):
    version: int
    segment: int
    offset: int
    sha256: bytes
    state: bytes

    def digest(self) -> bytes:
        place = b"%d %d %d\n" % (self.version, self.segment, self.offset)
        return hashlib.sha256(place + self.state).digest()


class SnapshotError(Exception):
    """A snapshot cannot be used; the message says why."""


class Snapshots:
    """The last two snapshots in a folder, numbered in the order of saving.

    ``damaged`` names the files that ``load`` had to pass over, for an alert of the
    product itself.
    """

    def __init__(self, folder: Path, every_seconds: float) -> None:
        self.folder = folder
        self.every_seconds = every_seconds
        self.damaged: list[Path] = []
        self._saved_at = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def due(self) -> bool:
        """Whether the last snapshot, or the start, is ``every_seconds`` ago."""
        return time.monotonic() - self._saved_at >= self.every_seconds

    def save(self, engine: Stateful, position: Position) -> Path:
        """Save the state as of ``position``, durably and whole or not at all; the file.

        Raises OSError where the disk refuses; the earlier snapshots then stand.
        """
        self._saved_at = time.monotonic()  # a disk that refuses is asked again when the next is due
        envelope = _Envelope(VERSION, *position, b"", msgspec.msgpack.encode(engine.state()))
        envelope.sha256 = envelope.digest()
        files = self._files()
        number = int(files[-1].stem) + 1 if files else 1
        path = self.folder / f"{number:012d}{SUFFIX}"
        write_whole(path, msgspec.msgpack.encode(envelope))
        sound = [file for file in files if file not in self.damaged]
        # One that cannot be read must not stand in the place of one that can.
        for old in {*files} - {*sound[len(sound) + 1 - KEPT :]}:
            old.unlink()
        return path

    def load(self) -> tuple[dict[str, Any], Position] | None:
        """Return the newest sound snapshot's state and position; None where there is none.

        A damaged one is logged, put into ``damaged`` and passed over for the one before.
        """
        self.damaged = []
        for path in reversed(self._files()):
            try:
                envelope = _read(path)
            except SnapshotError as error:
                logger().error("a snapshot is damaged", file=str(path), why=str(error))
                self.damaged.append(path)
                continue
            state: dict[str, Any] = msgspec.msgpack.decode(envelope.state)
            return state, Position(envelope.segment, envelope.offset)
        return None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{SUFFIX}"))


def _read(path: Path) -> _Envelope:
    try:
        envelope = msgspec.msgpack.decode(path.read_bytes(), type=_Envelope)
    except (msgspec.DecodeError, OSError) as error:
        raise SnapshotError(f"unreadable: {error}") from error
    if envelope.version != VERSION:
        raise SnapshotError(f"written by another version ({envelope.version}, this one knows {VERSION})")
    if envelope.digest() != envelope.sha256:
        raise SnapshotError("the checksum does not match")
    return envelope
