"""What a session has been told, and where and how a value of a call stood in it.

A value that is a field of a record and one in the middle of a sentence are told apart: agents take
values out of records, and who smuggles a value in mostly has to write a sentence around it.
"""

from __future__ import annotations

from bisect import bisect_right

import msgspec

from detectors.provenance.values import normal
from detectors.provenance.words import words
from detectors.wording import short_key

REQUEST, RESULT, MADE = "request", "result", "made"
FIELD, PROSE = "field", "prose"

MAX_REQUEST = 16_384
MAX_RESULT = 16_384
MAX_RESULTS = 65_536
"""Characters kept of a session's requests, of one result, and of all its results; the first of them."""

MAX_TRIES = 16
"""Places at which a value is looked at."""

_OPENS = frozenset(":=,;[({|<>\"'`*-/\n\t\\")
_CLOSES = frozenset(",;])}|<>\"'`\n\t\\")

Origin = tuple[str, str, str]
"""Request, result or made; of a result the tool that first gave it; and whether it stood in a field or
in prose.
"""


class Sources(msgspec.Struct, array_like=True):
    """The texts of one session: requests, and results one after the other with the tools that gave them.

    Results that came when there was no more room are not searched; ``full`` says so, and what is then
    found nowhere counts as unknown instead of made up.
    """

    request: str = ""
    asked_words: dict[str, None] = {}
    results: str = ""
    starts: list[int] = []
    tools: list[str] = []
    full: bool = False

    @property
    def size(self) -> int:
        """Characters held."""
        return len(self.request) + len(self.results)

    def asked(self, text: str) -> None:
        """Somebody asked for something."""
        room = MAX_REQUEST - len(self.request)
        self.full = self.full or len(text) > room
        if room > 0:
            self.request += "\n" + normal(text[:room])
            self.asked_words |= dict.fromkeys(words(text[:room]))

    def told(self, tool: str, text: str) -> None:
        """A tool answered."""
        room = min(MAX_RESULT, MAX_RESULTS - len(self.results))
        self.full = self.full or len(text) > room
        if room > 0:
            self.starts.append(len(self.results))
            self.tools.append(short_key(tool))
            self.results += "\n" + normal(text[:room])

    def origin(self, text: str) -> Origin | None:
        """Where a normal text comes from; None where that is not known."""
        if place(text, self.request) >= 0:
            return _FROM_REQUEST
        first = at = place(text, self.results)
        if first < 0:
            return None if self.full else _MADE_UP
        tool = self.tools[bisect_right(self.starts, first) - 1]
        for _ in range(MAX_TRIES):
            if is_field(self.results, at, at + len(text)):
                return RESULT, tool, FIELD
            at = place(text, self.results, at + 1)
            if at < 0:
                break
        return RESULT, tool, PROSE


_FROM_REQUEST: Origin = (REQUEST, "", "")
_MADE_UP: Origin = (MADE, "", "")


def place(text: str, within: str, start: int = 0) -> int:
    """Where ``text`` stands as whole words, from ``start`` on; -1 for nowhere.

    >>> place("15", "in 2015"), place("15", "item 15, new")
    (-1, 5)
    """
    at = within.find(text, start)
    if at < 0:
        return -1
    first, last = text[0].isalnum(), text[-1].isalnum()
    for _ in range(MAX_TRIES):
        end = at + len(text)
        inside = (first and at > 0 and within[at - 1].isalnum()) or (
            last and end < len(within) and within[end].isalnum()
        )
        if not inside:
            return at
        at = within.find(text, at + 1)
        if at < 0:
            return -1
    return -1


def is_field(text: str, begin: int, end: int) -> bool:
    """Whether ``text[begin:end]`` stands by itself: between signs or ends of lines, not within a sentence.

    >>> is_field("- iban: de89", 8, 12), is_field("pay to de89 today", 7, 11)
    (True, False)
    """
    before = text[max(0, begin - 3) : begin].rstrip(" ")
    after = text[end : end + 3].lstrip(" ")
    return (not before or before[-1] in _OPENS) and (not after or after[0] in _CLOSES)
