"""Dead letters as people and programs read them, safely beside the edge that writes them.

A line counts once its newline is there, and a file that goes meanwhile has gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from monitor.sources.deadletters import DeadLetter
from monitor.sources.letterfiles import Done, Line, add_marks, find_lines, letter_numbers, read_marks, up_to

ID = r"[1-9][0-9]{0,11}-[1-9][0-9]{0,11}"
"""What a letter's id looks like: the number of its file, and of its line."""


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
    numbers = letter_numbers(folder)
    last = place(before) if before else (max(numbers, default=0) + 1, 0)
    done: dict[int, dict[int, Done]] = {}
    for number in reversed(up_to(numbers, last[0])):
        for line in reversed(find_lines(folder, number)):
            # While two files are joined, a letter stands in both.
            if line.place < last:
                last = line.place
                yield _kept(folder, line, done)


def find(folder: Path, letter_id: str) -> Kept | None:
    """The letter of that id; None where it is gone or never was. Raises ValueError at a bad id."""
    return find_all(folder, [letter_id]).get(letter_id)


def find_all(folder: Path, letter_ids: Iterable[str]) -> dict[str, Kept]:
    """The letters that are there, by id; each file is read once. Raises ValueError at a bad id."""
    wanted = _by_holder(folder, map(place, letter_ids))
    found = {}
    done: dict[int, dict[int, Done]] = {}
    for number, places in wanted.items():
        for line in find_lines(folder, number):
            if line.place in places:
                kept = _kept(folder, line, done)
                found[kept.id] = kept
    return found


def _by_holder(folder: Path, places: Iterable[tuple[int, int]]) -> dict[int, set[tuple[int, int]]]:
    """Places by the number of the file in which their letters stand, if they stand anywhere."""
    numbers = letter_numbers(folder)
    held: dict[int, set[tuple[int, int]]] = {}
    for file, line in places:
        if numbers and file <= numbers[-1]:
            held.setdefault(up_to(numbers, file)[-1], set()).add((file, line))
    return held


def _kept(folder: Path, line: Line, done: dict[int, dict[int, Done]]) -> Kept:
    """The letter of a line; ``done`` remembers the marks that were read."""
    try:
        letter = msgspec.json.decode(line.raw, type=DeadLetter)
    except (msgspec.DecodeError, UnicodeDecodeError):
        letter = DAMAGED
    if line.file not in done:
        done[line.file] = read_marks(folder, line.file)
    return Kept(f"{line.file}-{line.line}", letter, done[line.file].get(line.line))


def mark_done(folder: Path, letter_ids: Iterable[str], at: int, actor: str) -> None:
    """Say that these letters were replayed; durable on return. One process at a time may call this.

    Raises OSError where the disk refuses.
    """
    by_file: dict[int, list[Done]] = {}
    for number, places in _by_holder(folder, map(place, letter_ids)).items():
        # Only a file that was joined to a newer one may have gone without a trace.
        joined = any(file != number for file, _ in places)
        there = {line.file for line in find_lines(folder, number)} if joined else {number}
        for file, line in sorted(places):
            if file in there:
                by_file.setdefault(file, []).append(Done(line, at, actor))
    for file, marks in by_file.items():
        add_marks(folder, file, marks)


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
