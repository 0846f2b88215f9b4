"""Which files are followed: found by name, known by device, inode and first line, whatever they are called.

A file that was renamed is read to its end; one that was cut or replaced in place begins anew; a copy
of one that was read (as copytruncate makes) goes on where the reading of the first one stood.
"""

from __future__ import annotations

import glob
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

from monitor.sources.follow.place import Place, PlaceFile, head_of, tail_of
from monitor.sources.follow.tail import Tail

Key = tuple[int, int]
"""Device and inode."""

Tell = Callable[..., None]
"""Called with what happened (a word), the path, and facts by name."""

FIND_SECONDS = 1.0
"""How often names are looked up."""

MOST_OPEN = 500
"""Files that are held open; beyond it, those longest at rest are opened again when they grow."""

MOST_FORMER = 200
"""Places kept of what files were before they were cut or replaced."""

ROTATED_SECONDS = 30.0
"""A file without its name is given up when it has not grown for so long: its writer has moved on."""

COPY_SECONDS = 5.0
"""A file that begins like a known one but is shorter may be a copy in the making, while it grows."""


class Files:
    """The files that match ``patterns`` and what they were renamed to."""

    def __init__(
        self,
        patterns: Iterable[str],
        places: PlaceFile,
        tell: Tell,
        from_end: bool = False,
        once: bool = False,
    ) -> None:
        self.patterns = [os.path.abspath(pattern) for pattern in patterns]
        self._file = places
        self._tell = tell
        loaded, former = places.load()
        self._places: dict[Key, Place] = {(place.device, place.inode): place for place in loaded}
        self._former = deque(former, MOST_FORMER)
        self._open: dict[Key, Tail] = {}
        self._left_alone: set[Key] = set()
        self._from_end = from_end and not loaded
        self._once = once
        self._found_at = float("-inf")
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self._open)

    def save(self) -> None:
        """Write down how far everything was answered for."""
        for tail in self._open.values():
            tail.place.is_seen()
        self._file.save(self._places.values(), self._former)

    def close(self) -> None:
        """Write it down, and let go of every file."""
        self.save()
        for tail in self._open.values():
            tail.close()
        self._file.close()

    @property
    def unreadable(self) -> int:
        """How many of the names are of no file that can be read now."""
        return len(self._told)

    @property
    def waiting(self) -> bool:
        """Whether a file is held back until it shows what it is."""
        return any(tail.held and tail.size for tail in self._open.values())

    def look(self) -> list[Tail]:
        """Find files where that is due; those that may have something to read."""
        moment = time.monotonic()
        if moment - self._found_at >= FIND_SECONDS:
            self._found_at = moment
            self._find()
            self._from_end = False
        for key, tail in [*self._open.items()]:
            unread = tail.unread
            if not tail.look(moment):
                self._begin_anew(tail, unread)
            if tail.held:
                self._recognise(tail, moment)
            if tail.rotated and not tail.unread and moment - tail.grown_at > ROTATED_SECONDS:
                self._former.append(self._places.pop(key))
                self._open.pop(key).close()
        self._rest()
        return [tail for tail in self._open.values() if tail.unread and not tail.held]

    def ending(self, tail: Tail) -> bool:
        """Whether nobody will complete the tail's last line any more."""
        return tail.rotated and time.monotonic() - tail.grown_at > ROTATED_SECONDS

    def _rest(self) -> None:
        """Let go of files that have long been read to their end, where very many are open."""
        if len(self._open) <= MOST_OPEN:
            return
        at_rest = [
            (tail.grown_at, key) for key, tail in self._open.items() if not (tail.unread or tail.rotated)
        ]
        for _, key in sorted(at_rest)[: len(self._open) - MOST_OPEN]:
            self._open.pop(key).close()

    # --- finding ---

    def _find(self) -> None:
        names = self._names()
        for key, path in names.items():
            if (tail := self._open.get(key)) is not None:
                tail.path, tail.place.path, tail.rotated = path, str(path), False
            elif key not in self._left_alone and self._has_changed(key, path):
                self._begin(key, path)
        self._left_alone &= names.keys()
        for key, tail in self._open.items():
            if key not in names and not tail.rotated:
                tail.rotated = True
                tail.grown_at = time.monotonic()
                self._tell("rotated", tail.path, unread=tail.unread)
        self._find_renamed(names)

    def _names(self) -> dict[Key, Path]:
        """What the patterns name now; a file with two names is one file."""
        found: dict[Key, Path] = {}
        named = (glob.glob(pattern, recursive=True) or [pattern] for pattern in self.patterns)
        for name in chain.from_iterable(named):
            try:
                about = os.stat(name)
            except OSError as error:
                self._say_once(name, error.strerror or "cannot be read")
                continue
            if stat.S_ISREG(about.st_mode):
                self._told.discard(name)
                found.setdefault((about.st_dev, about.st_ino), Path(name))
            else:
                self._say_once(name, "not a file; name files, such as 'FOLDER/*.ndjson'")
        return found

    def _say_once(self, name: str, why: str) -> None:
        if name not in self._told:
            self._told.add(name)
            self._tell("unreadable", Path(name), why=why)

    def _has_changed(self, key: Key, path: Path) -> bool:
        """A file that was let go of while at rest is opened again only when there is more of it."""
        place = self._places.get(key)
        return place is None or len(self._open) < MOST_OPEN or path.stat().st_size != place.offset

    def _find_renamed(self, names: dict[Key, Path]) -> None:
        """Files that were read under a name that is another's now: what is left of them is read too."""
        lost = {
            key: place
            for key, place in self._places.items()
            if key not in names and key not in self._open and self._ours(place.path)
        }
        for folder in {os.path.dirname(place.path) for place in lost.values()}:
            for key, path in _files(folder):
                if key in lost and self._begin(key, path, anew=False):
                    self._open[key].rotated = True
                    del lost[key]
        for key in lost:
            self._former.append(self._places.pop(key))

    def _ours(self, path: str) -> bool:
        return any(path == pattern or fnmatchcase(path, pattern) for pattern in self.patterns)

    # --- knowing what a file is ---

    def _begin(self, key: Key, path: Path, anew: bool = True) -> bool:
        """Open a file; whether it is now followed. Without ``anew`` only as what it was known for."""
        place = self._places.get(key)
        try:
            fresh = Place(path=str(path), device=key[0], inode=key[1], seen=int(time.time()))
            tail = Tail(path, place or fresh)
        except OSError as error:
            self._say_once(str(path), error.strerror or "cannot be read")
            return False
        known = place is not None and place.holds(tail.descriptor)
        if tail.key != key or not (known or anew):
            tail.close()
            return False
        if tail.compressed:
            tail.close()
            self._left_alone.add(key)
            self._tell("compressed", path)
            return False
        tail.skips = self._from_end and place is None
        self._open[key] = tail
        self._places[key] = tail.place
        if place is not None and not known:
            self._begin_anew(tail, 0)
        tail.held = tail.place.offset == 0
        self._tell("opened", path, offset=tail.place.offset)
        return True

    def _begin_anew(self, tail: Tail, unread: int) -> None:
        """The file was cut, or other content was put into it: it is a new one under the same number."""
        self._former.append(tail.begin_anew())
        self._tell("truncated", tail.path, unread=unread)

    def _recognise(self, tail: Tail, moment: float) -> None:
        """Let a new file be read: from its start, from its end, or from where its twin stands."""
        if not tail.place.head and (self._once or self.ending(tail)):
            tail.place.head, tail.place.head_size = head_of(tail.descriptor, last=True)
        elif not tail.place.head:
            return
        twins = [
            place
            for place in (*self._places.values(), *self._former)
            if place.head == tail.place.head and place is not tail.place and place.offset
        ]
        known = [
            place.offset for place in twins if place.offset <= tail.size and place.holds(tail.descriptor)
        ]
        if known:
            tail.place.move(max(known), tail_of(tail.descriptor, max(known)))
            self._tell("copy", tail.path, offset=max(known))
        elif any(place.offset > tail.size for place in twins) and moment - tail.grown_at < COPY_SECONDS:
            return
        elif tail.skips:
            tail.to_end()
        tail.held = False


def _files(folder: str) -> Iterator[tuple[Key, Path]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    yield (entry.stat(follow_symlinks=False).st_dev, entry.inode()), Path(entry.path)
    except FileNotFoundError:
        return
