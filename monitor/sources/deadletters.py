"""Dead letters: what was refused, why, and whole, so that it can be sent again once something is mended."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from pathlib import Path

import msgspec

from monitor.durable import DRAFT, sync_folder
from monitor.sources.gate import Form, Rejection
from monitor.sources.keys import Sender
from monitor.sources.letterfiles import (
    Line,
    done_file,
    letter_file,
    letter_numbers,
    read_lines,
    read_marks,
    write_lines,
)
from monitor.sources.lettershares import NOBODY, Held, leaving, owner

FILES = 8
"""A file takes this part of the space, and so much becomes free at once when room is needed."""

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


class DeadLetters:
    """Append-only files (letterfiles.py), bounded together and shared between keys (lettershares.py).

    One process writes; any may read (deadreader.py). A letter's id is its place, ``FILE-LINE``:
    files and lines are counted up and never used again. ``evicted`` counts the letters that had to
    go since this began and had not been replayed.
    """

    def __init__(self, folder: Path, max_bytes: int = 64 << 20) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.evicted = 0
        folder.mkdir(parents=True, exist_ok=True)
        for draft in folder.glob(f"*{DRAFT}"):
            draft.unlink()
        present = letter_numbers(folder)
        self._files = self._found(present)
        # A torn last line stays alone in its file: each start begins a new one.
        self._number = max(present, default=0) + 1

    def _found(self, present: list[int]) -> dict[int, Held]:
        """What the files hold, without those that a crash left beside the one they were joined to."""
        files = {}
        joined = (max(present, default=0) + 1, 0)
        for number in reversed(present):
            lines = read_lines(self.folder, number)
            if lines and lines[-1].place >= joined:
                letter_file(self.folder, number).unlink()
                continue
            joined = lines[0].place if lines else joined
            files[number] = Held.of(lines)
            files[number].add_torn(letter_file(self.folder, number).stat().st_size)
        return files

    def count(self) -> int:
        """How many letters are kept."""
        return sum(held.letters for held in list(self._files.values()))

    @property
    def most(self) -> int:
        """Bytes of a refused record that a letter keeps."""
        return self.max_bytes // LARGEST_SHARE

    @property
    def _share(self) -> int:
        return self.max_bytes // FILES

    @property
    def _size(self) -> int:
        return sum(held.size for held in self._files.values())

    def append(self, letters: Iterable[DeadLetter]) -> None:
        """Keep the letters; they are durable on return. Raises OSError where the disk refuses."""
        for portion in self._portions((one.key_id, msgspec.json.encode(one) + b"\n") for one in letters):
            data = b"".join(line for _, line in portion)
            self._make_room(len(data))
            self._write(data)
            held = self._files[self._number]
            for key, line in portion:
                held.add(key, len(line))
            if held.size >= self._share:
                self._number += 1

    def _portions(self, lines: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
        """Lines with their keys, in lists of at most a file's share, or of one line."""
        waiting: list[tuple[str, bytes]] = []
        size = 0
        for key, line in lines:
            if waiting and size + len(line) > self._share:
                yield waiting
                waiting, size = [], 0
            waiting.append((key, line))
            size += len(line)
        if waiting:
            yield waiting

    def _write(self, data: bytes) -> None:
        path = letter_file(self.folder, self._number)
        fresh = self._number not in self._files
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        held = self._files.setdefault(self._number, Held())
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fdatasync(descriptor)
        except OSError:
            self._leave_whole(descriptor, held)
            raise
        finally:
            os.close(descriptor)
        if fresh:
            sync_folder(self.folder)

    def _leave_whole(self, descriptor: int, held: Held) -> None:
        """Take a half-written line back; where even that fails, it stays alone at the end of its file."""
        try:
            os.ftruncate(descriptor, held.size)
        except OSError:
            self._number += 1

    def _make_room(self, size: int) -> None:
        """Let letters go until ``size`` bytes more stay within the bound."""
        while self._size and self._size + size > self.max_bytes:
            short = self._size + max(size, self._share) - self.max_bytes
            for number, keys in leaving(self._files, short).items():
                self._take_out(number, keys)
        if len(self._files) > 2 * FILES:
            self._join()

    def _take_out(self, number: int, keys: set[str]) -> None:
        """Remove the letters of these keys from a file, and the file with its last letter."""
        # What is written from now on counts its lines from one, so it needs a file of its own.
        self._number = max(self._number, number + 1)
        left: list[Line] = []
        gone: list[Line] = []
        for line in read_lines(self.folder, number):
            (gone if owner(line) in keys else left).append(line)
        if left:
            self._files[number] = Held.of(write_lines(self.folder, number, left))
        else:
            letter_file(self.folder, number).unlink(missing_ok=True)
            del self._files[number]
        self._forget(gone, {line.file for line in left})

    def _forget(self, gone: list[Line], present: set[int]) -> None:
        """Count what was lost with these letters, and drop the marks of files that have none left."""
        for file, lines in groupby(gone, lambda line: line.file):
            done = read_marks(self.folder, file)
            self.evicted += sum(line.line not in done and owner(line) != NOBODY for line in lines)
            if file not in present:
                done_file(self.folder, file).unlink(missing_ok=True)

    def _join(self) -> None:
        """Make one file of the two smallest neighbours: what a flood leaves behind stays few files.

        One pair at a time, since the next letters wait for it.
        """
        closed = sorted(number for number in self._files if number < self._number)
        size, older, newer = min(
            (self._files[older].size + self._files[newer].size, older, newer)
            for older, newer in pairwise(closed)
        )
        if size > self._share:
            return
        lines = read_lines(self.folder, older) + read_lines(self.folder, newer)
        self._files[newer] = Held.of(write_lines(self.folder, newer, lines))
        letter_file(self.folder, older).unlink(missing_ok=True)
        del self._files[older]
