"""Who holds how much of the room for dead letters, and whose go when it is used up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from monitor.sources.letterfiles import Line

NOBODY = ""
"""Holds lines that cannot be read; ids of keys are never empty."""


class _Owned(msgspec.Struct):
    key_id: str


_OWNED = msgspec.json.Decoder(_Owned)


def owner(line: Line) -> str:
    """The key whose letter this is."""
    try:
        return _OWNED.decode(line.raw).key_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return NOBODY


@dataclass
class Held:
    """What one file holds: bytes by key, and letters."""

    by_key: Counter[str] = field(default_factory=Counter)
    letters: int = 0

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Held:
        """What a file of these lines holds."""
        made = cls()
        for line in lines:
            made.add(owner(line), line.size)
        return made

    def add_torn(self, size: int) -> None:
        """What the file takes beyond its lines, of ``size`` in all, is nobody's."""
        if torn := size - self.size:
            self.by_key[NOBODY] += torn

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.by_key.total()

    def add(self, key: str, size: int) -> None:
        """One letter more."""
        self.by_key[key] += size
        self.letters += 1


def leaving(files: Mapping[int, Held], room: int) -> dict[int, set[str]]:
    """Whose letters go from which files so that ``room`` bytes become free.

    Again and again it is the oldest of the key that then holds most: one that floods pushes out
    its own, and a key with less than its equal share loses nothing.
    """
    held: Counter[str] = Counter()
    for file in files.values():
        held.update(file.by_key)
    places = {key: iter(sorted(n for n, file in files.items() if file.by_key[key])) for key in held}
    going: dict[int, set[str]] = {}
    while room > 0 and held:
        ((key, size),) = held.most_common(1)
        number = next(places[key])
        freed = files[number].by_key[key]
        held[key] = size - freed
        if held[key] <= 0:
            del held[key]
        room -= freed
        going.setdefault(number, set()).add(key)
    return going
