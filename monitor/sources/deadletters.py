"""Dead letters: what was refused, why, and whole, so that it can be sent again once something is mended."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from monitor.sources.gate import Form, Rejection
from monitor.sources.keys import Sender

FILES = 8
"""The space is divided among this many files; the oldest goes when the newest needs its room."""

LARGEST_SHARE = 4
"""One letter keeps at most this part of the space, and is an excerpt where it was longer."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One refusal. ``at`` is microseconds since the epoch; ``raw`` is text, or base64 of bytes.

    ``way`` is the path that the sender posted to, ``content_type`` and ``replaying`` what the
    request said, ``index`` the record's place in it, ``size`` the bytes of ``raw`` before any cut.
    """

    at: int
    key_id: str
    tenant: str
    index: int
    reason: str
    way: str = ""
    content_type: str = ""
    replaying: bool = False
    form: Form = "record"
    encoding: str = "utf-8"
    size: int = 0
    raw: str | None = None

    @classmethod
    def of(cls, at: int, sender: Sender, fault: Rejection, most: int) -> DeadLetter:
        """A letter over a refusal, of which at most ``most`` bytes are kept."""
        raw = fault.raw
        form = fault.form if raw is None or len(raw) <= most else "excerpt"
        text, encoding = (None, "utf-8") if raw is None else _printable(raw[:most])
        return cls(
            at=at,
            key_id=sender.key_id,
            tenant=sender.tenant,
            index=fault.index,
            reason=fault.reason,
            way=sender.way,
            content_type=sender.content_type,
            replaying=sender.replaying,
            form=form,
            encoding=encoding,
            size=len(raw or b""),
            raw=text,
        )

    def bytes(self) -> bytes | None:
        """What was refused, as it came; None where nothing of it was read."""
        if self.raw is None:
            return None
        return base64.b64decode(self.raw) if self.encoding == "base64" else self.raw.encode()


def _printable(raw: bytes) -> tuple[str, str]:
    """Text where it is text; base64 where it is not, or where JSON would need far more room for it."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode(), "base64"
    if len(msgspec.json.encode(text)) > 2 * len(raw) + 2:
        return base64.b64encode(raw).decode(), "base64"
    return text, "utf-8"


def letter_file(folder: Path, number: int) -> Path:
    """The file of that number."""
    return folder / f"{number:012d}.ndjson"


def letter_numbers(folder: Path) -> list[int]:
    """Numbers of the files present, oldest first."""
    return sorted(int(path.stem) for path in folder.glob("*.ndjson") if path.stem.isdecimal())


class DeadLetters:
    """Append-only NDJSON files, bounded together. One process writes; any may read (deadreader.py).

    A letter's id is its place, ``FILE-LINE``: files and lines are counted up and never used again.
    """

    def __init__(self, folder: Path, max_bytes: int = 64 << 20) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True)
        present = letter_numbers(folder)
        self._counts = {number: _lines(letter_file(folder, number)) for number in present}
        self._sizes = {number: letter_file(folder, number).stat().st_size for number in present}
        # A torn last line stays alone in its file: each start begins a new one.
        self._number = max(present, default=0) + 1

    def count(self) -> int:
        """How many letters are kept."""
        return sum(self._counts.values())

    @property
    def most(self) -> int:
        """Bytes of a refused record that a letter keeps."""
        return self.max_bytes // LARGEST_SHARE

    def append(self, letters: Iterable[DeadLetter]) -> None:
        """Keep the letters; they are durable on return. Raises OSError where the disk refuses."""
        for lines in self._portions(msgspec.json.encode(letter) + b"\n" for letter in letters):
            data = b"".join(lines)
            self._make_room(len(data))
            self._write(data)
            self._sizes[self._number] = self._sizes.get(self._number, 0) + len(data)
            self._counts[self._number] = self._counts.get(self._number, 0) + len(lines)
            if self._sizes[self._number] >= self.max_bytes // FILES:
                self._number += 1

    def _portions(self, lines: Iterable[bytes]) -> Iterator[list[bytes]]:
        """Lines in lists of at most a file's share, or of one line."""
        waiting: list[bytes] = []
        for line in lines:
            if waiting and sum(map(len, waiting)) + len(line) > self.max_bytes // FILES:
                yield waiting
                waiting = []
            waiting.append(line)
        if waiting:
            yield waiting

    def _write(self, data: bytes) -> None:
        path = letter_file(self.folder, self._number)
        fresh = self._number not in self._sizes
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fdatasync(descriptor)
        except OSError:
            self._leave_whole(descriptor)
            raise
        finally:
            os.close(descriptor)
        if fresh:
            _sync(self.folder)

    def _leave_whole(self, descriptor: int) -> None:
        """Take a half-written line back; where even that fails, it stays alone at the end of its file."""
        kept = self._sizes.setdefault(self._number, 0)
        self._counts.setdefault(self._number, 0)
        try:
            os.ftruncate(descriptor, kept)
        except OSError:
            self._number += 1

    def _make_room(self, size: int) -> None:
        """Let the oldest files go until ``size`` bytes more stay within the bound."""
        while self._sizes and sum(self._sizes.values()) + size > self.max_bytes:
            oldest = min(self._sizes)
            letter_file(self.folder, oldest).unlink(missing_ok=True)
            done_file(self.folder, oldest).unlink(missing_ok=True)
            del self._sizes[oldest], self._counts[oldest]
            self._number = max(self._number, oldest + 1)


def done_file(folder: Path, number: int) -> Path:
    """Where it stands which letters of that file were replayed (deadreader.py)."""
    return folder / f"{number:012d}.done"


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
