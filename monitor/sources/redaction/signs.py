"""What a text may hold at all, told in one pass: most texts hold nothing, and cost next to nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from monitor.sources.redaction.kinds import Kind

_JOINING = b" -().\\/" + bytes(range(0x80, 0x100))
"""What may stand between the digits of one number; without it a number is a run."""

_SHAPES = bytes(
    0x64 if 0x30 <= byte <= 0x39 else 0x41 if 0x41 <= byte <= 0x5A else 0x2E if 0x61 <= byte <= 0x7A else byte
    for byte in range(256)
)
"""A digit becomes ``d``, a capital ``A``, a small letter a dot."""

_ESCAPES = ("\\u", "\\/", "\\x")


def hides(text: str) -> bool:
    """Whether the text has escapes that may hide what it holds."""
    return "\\" in text and any(escape in text for escape in _ESCAPES)


ByMark = dict[str, dict[str, list[str]]]


class Signs:
    """Tells which of some kinds a text may hold; never too few."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._kinds = kinds
        self._hints = _by_mark((hint, kind.name) for kind in kinds for hint in kind.hints)
        self._words = _by_mark((word, kind.name) for kind in kinds for word in kind.words)
        self._shapes = [(shape, kind.name) for kind in kinds for shape in kind.shapes]

    def of(self, *texts: str) -> list[Kind]:
        """The kinds that any of the texts may hold, in their order."""
        if any(map(hides, texts)):
            return [*self._kinds]
        found: set[str] = set()
        for text in texts:
            found.update(_named(self._hints, text))
            if self._words:
                found.update(_named(self._words, text.lower()))
            if self._shapes:
                shaped = text.encode(errors="replace").translate(_SHAPES, _JOINING)
                found.update(name for shape, name in self._shapes if shape in shaped)
        return [kind for kind in self._kinds if kind.name in found] if found else []


def _by_mark(signs: Iterable[tuple[str, str]]) -> ByMark:
    """Signs and who has them, by the first of their characters that is no letter and no digit."""
    found: ByMark = {}
    for sign, name in signs:
        mark = next((char for char in sign if not char.isalnum()), "")
        found.setdefault(mark, {}).setdefault(sign, []).append(name)
    return found


def _named(signs: ByMark, text: str) -> Iterator[str]:
    for mark, group in signs.items():
        # One character is found in a tenth of the time that a word takes.
        if mark in text:
            for sign, names in group.items():
                if sign in text:
                    yield from names
