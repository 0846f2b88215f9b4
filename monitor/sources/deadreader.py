"""Dead letters as people and programs read them, safely beside the edge that writes them.

A line counts once its newline is there, and a file that goes meanwhile has gone. Which letters
were replayed stands beside them, in one small file to each file of letters.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from monitor.sources.deadletters import DeadLetter, done_file, letter_file, letter_numbers

ID = r"[1-9][0-9]{0,11}-[1-9][0-9]{0,11}"
"""What a letter's id looks like: the number of its file, and of its line."""


class Done(msgspec.Struct, frozen=True):
    """The letter in ``line`` was replayed: when (microseconds since the epoch), and by whom."""

    line: int
    at: int
    actor: str


DAMAGED = DeadLetter(
    at=0, key_id="", tenant="", index=0, reason="this letter is damaged on the disk", form="excerpt"
)
"""Stands for a line that cannot be read, as a power cut may leave one."""


@dataclass(frozen=True)
class Kept:
    """A letter in its place, and whether it was replayed."""

    id: str
    letter: DeadLetter
    done: Done | None


def place(letter_id: str) -> tuple[int, int]:
    """File and line of an id. Raises ValueError where it is none."""
    if not re.fullmatch(ID, letter_id):
        raise ValueError("a dead letter's id looks like 3-17")
    file, _, line = letter_id.partition("-")
    return int(file), int(line)


def newest(folder: Path, before: str | None = None) -> Iterator[Kept]:
    """Letters, newest first; those before the one with the id ``before``, if one is named."""
    last_file, last_line = place(before) if before else (None, 0)
    for number in reversed(letter_numbers(folder)):
        if last_file is not None and number > last_file:
            continue
        lines = _lines(folder, number)
        count = min(len(lines), last_line - 1) if number == last_file else len(lines)
        done = _done(folder, number)
        for line in range(count, 0, -1):
            yield _kept(number, line, lines[line - 1], done)


def find(folder: Path, letter_id: str) -> Kept | None:
    """The letter of that id; None where it is gone or never was. Raises ValueError at a bad id."""
    number, line = place(letter_id)
    lines = _lines(folder, number)
    if line > len(lines):
        return None
    return _kept(number, line, lines[line - 1], _done(folder, number))


def find_all(folder: Path, letter_ids: Iterable[str]) -> dict[str, Kept]:
    """The letters that are there, by id; each file is read once. Raises ValueError at a bad id."""
    wanted: dict[int, list[int]] = {}
    for letter_id in letter_ids:
        number, line = place(letter_id)
        wanted.setdefault(number, []).append(line)
    found = {}
    for number, places in wanted.items():
        lines, done = _lines(folder, number), _done(folder, number)
        for line in places:
            if line <= len(lines):
                kept = _kept(number, line, lines[line - 1], done)
                found[kept.id] = kept
    return found


def _kept(number: int, line: int, raw: bytes, done: dict[int, Done]) -> Kept:
    try:
        letter = msgspec.json.decode(raw, type=DeadLetter)
    except msgspec.DecodeError:
        letter = DAMAGED
    return Kept(f"{number}-{line}", letter, done.get(line))


def _lines(folder: Path, number: int) -> list[bytes]:
    try:
        return letter_file(folder, number).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def _done(folder: Path, number: int) -> dict[int, Done]:
    try:
        lines = done_file(folder, number).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return {}
    marks = [msgspec.json.decode(line, type=Done) for line in lines]
    return {mark.line: mark for mark in marks}


def mark_done(folder: Path, letter_ids: Iterable[str], at: int, actor: str) -> None:
    """Say that these letters were replayed; durable on return. One process at a time may call this.

    Raises OSError where the disk refuses.
    """
    by_file: dict[int, list[Done]] = {}
    for letter_id in letter_ids:
        number, line = place(letter_id)
        by_file.setdefault(number, []).append(Done(line, at, actor))
    for number, marks in by_file.items():
        if letter_file(folder, number).exists():
            _append(done_file(folder, number), b"".join(msgspec.json.encode(m) + b"\n" for m in marks))


def _append(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    size = os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, data) < len(data):
            os.ftruncate(descriptor, size)
            raise OSError(f"{path}: the disk is full")
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Wanted:
    """Which letters are asked for; what is None or empty is not asked about.

    ``since`` is microseconds since the epoch; ``reason`` is a part of it, in any case.
    """

    tenant: str | None = None
    key_id: str | None = None
    reason: str | None = None
    since: int | None = None
    replayed: bool | None = None

    def fits(self, kept: Kept) -> bool:
        """Whether this letter is asked for."""
        letter = kept.letter
        return (
            self.tenant in (None, letter.tenant)
            and self.key_id in (None, letter.key_id)
            and (not self.reason or self.reason.lower() in letter.reason.lower())
            and (self.since is None or letter.at >= self.since)
            and self.replayed in (None, kept.done is not None)
        )


def page(folder: Path, fits: Callable[[Kept], bool], before: str | None, most: int) -> list[Kept]:
    """The newest ``most`` letters that fit."""
    return list(islice(filter(fits, newest(folder, before)), most))
