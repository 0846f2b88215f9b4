"""Finds values of the wanted kinds in a text and puts masks or fingerprints in their place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from monitor.sources.redaction import jsontext
from monitor.sources.redaction.kinds import Kind
from monitor.sources.redaction.signs import Signs
from monitor.sources.redaction.values import STAND

MOST_NESTED = 4
"""JSON in a string in JSON and so on is opened to this depth; what is deeper is taken as text."""

SHORTEST_SECRET = 4
"""Characters of a value from which a key that says so makes it a secret."""

LONG = 4 << 10
"""Characters from which looking at a text costs more than looking for too many kinds in it."""

LONGEST_RUN = 24 << 10
"""Characters without any space, quote or bracket that may be one value."""

ASSIGNED = "assigned_secret"

_SECRET_NAME = re.compile(
    r"(?:.*[^a-z])?(?:pass|pwd)|.*(?:passwords?|passwd|passphrase|secrets?|tokens?|api[_-]?keys?"
    r"|(?:secret|access|private|account|signing|encryption)[_-]?key|credentials?|cookie)",
    re.IGNORECASE | re.DOTALL,
)
"""A key of JSON, or an attribute, whose value is a secret whatever it looks like."""

_COUNTS = re.compile(
    r".*(?:tokens|(?:max|min|num|total|input|output|prompt|completion|cached?|per|cost|count|usage|limit)"
    r"[a-z_.-]*token)",
    re.IGNORECASE | re.DOTALL,
)
"""A name that tells of tokens of text: numbers under it are no secret."""

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

_HEADER = re.compile(r"(?:basic|bearer|token|digest|negotiate|apikey)\s+\S", re.IGNORECASE)

_END_OF_RUN = " \t\r\n\"'\\,;:{}[]()<>"

Stand = Callable[[str, str], str]
"""What stands in the place of a value: of its kind, and of the value in its plain form."""


@dataclass(frozen=True)
class OwnPattern:
    """A site's expression, searched by the engine of the rules, whose time grows with the text alone."""

    name: str
    pattern: str

    @property
    def anchored(self) -> bool:
        """Whether it says where a text begins or ends: then the whole tells nothing of its parts."""
        return any(sign in self.pattern for sign in ("^", "$", "\\A", "\\z"))

    def values(self, text: str) -> list[str]:
        """Everything in the text that matches, longest first."""
        found: list[str] = pl.Series([text]).str.extract_all(self.pattern)[0].to_list()
        return sorted({value for value in found if value}, key=len, reverse=True)


class Scrubber:
    """Scrubs texts of some kinds of values, always with the same result for the same text.

    What it puts in a value's place it leaves as it is: scrubbing twice is scrubbing once.
    """

    def __init__(self, kinds: Sequence[Kind], own: Sequence[OwnPattern], stand: Stand) -> None:
        self._signs = Signs(kinds)
        self._own = own
        self._anchored = any(one.anchored for one in own)
        self._any_own = "|".join(f"(?:{one.pattern})" for one in own)
        self._assigned = any(kind.name == ASSIGNED for kind in kinds)
        self._stand = stand

    def look(self, *texts: str) -> Look | None:
        """How to scrub these texts and parts of them; None where there is nothing to be found."""
        kinds = self._signs.of(*texts)
        own = self._own if self._own and any(self._matches(text) for text in texts) else ()
        if not kinds and not own:
            return None
        return Look(kinds, own, self._stand, self._assigned)

    def nothing(self) -> Look:
        """A look that found nothing."""
        return Look((), (), self._stand, assigned=False)

    def _matches(self, text: str) -> bool:
        # Any escape may hide what an own pattern looks for, a line's end among them.
        return self._anchored or "\\" in text or bool(pl.Series([text]).str.contains(self._any_own)[0])

    def text(self, value: str, name: str = "", tail: int = 0, above: Look | None = None) -> str:
        """The text without such values; JSON stays JSON. ``name`` is what it is called, where that tells.

        ``above`` is a look at more than this text, which spares a long one another.

        A ``tail`` other than 0 says that the text was cut, perhaps within a value: the end of what
        is left is taken away too, at least so many characters of it.
        """
        look = above if len(value) > LONG else None
        if look is None:
            look = self.look(f"{name}={value}" if name else value)
        if look is not None:
            value = look.text(value, name, cut=tail > 0)
        return _without_tail(value, tail) if tail else value


class Look:
    """A scrubber's way through texts of which it is known what they may hold."""

    def __init__(
        self, kinds: Sequence[Kind], own: Sequence[OwnPattern], stand: Stand, assigned: bool
    ) -> None:
        self._kinds = kinds
        self._own = own
        self._stand = stand
        self._assigned = assigned

    def text(self, value: str, name: str = "", cut: bool = False, depth: int = 0) -> str:
        """The text without such values; ``name`` is the key that it stands under."""
        if not self._kinds and not self._own:
            return value
        if name and self._is_secret(name, value):
            return self._stand(ASSIGNED, value)
        if depth < MOST_NESTED and jsontext.looks_so(value):
            value = jsontext.replaced(
                value, lambda inner, key, torn: self.text(inner, key, torn, depth + 1), self._governs
            )
            if not cut and jsontext.is_so(value):
                return value
        return self.plain(value)

    def _is_secret(self, name: str, value: str) -> bool:
        if not self._assigned or len(value) < SHORTEST_SECRET or STAND.fullmatch(value):
            return False
        name = name[-100:]
        if name[-13:].lower() == "authorization":
            return bool(_HEADER.match(value))
        if not _SECRET_NAME.fullmatch(name) or (_NUMBER.fullmatch(value) and _COUNTS.fullmatch(name)):
            return False
        # JSON is opened rather than taken whole.
        return not (jsontext.looks_so(value) and jsontext.is_so(value))

    def _governs(self, name: str) -> bool:
        """Whether all that stands under this key of JSON is secret."""
        return self._assigned and bool(_SECRET_NAME.fullmatch(name[-100:]))

    def plain(self, value: str) -> str:
        """The same for a text that is nothing but text."""
        for kind in self._kinds:
            value = "".join(self._parts(kind, value))
        for own in self._own:
            if found := own.values(value):
                value = _replace(value, found, [self._stand(own.name, one) for one in found])
        return value

    def _parts(self, kind: Kind, text: str) -> Iterator[str]:
        """What lies between the values of a kind, and what stands in their place."""
        group = 1 if kind.pattern.groups else 0
        done = place = 0
        while match := kind.pattern.search(text, place):
            begin = match.start(group)
            value = kind.fit(match[group])
            if value and not _stands(text, begin, begin + len(value)):
                yield text[done:begin]
                yield self._stand(kind.name, kind.plain(value))
                done = place = begin + len(value)
            else:
                place = match.start() + 1
        yield text[done:]


def _stands(text: str, begin: int, end: int) -> bool:
    """Whether this part of the text lies within a mask or a fingerprint."""
    opened = text.rfind("[", max(begin - 100, 0), begin + 1)
    stand = STAND.match(text, opened) if opened >= 0 else None
    return stand is not None and end <= stand.end()


def _replace(text: str, values: list[str], stands: list[str]) -> str:
    """Put each value's stand for it outside masks and fingerprints, in one pass; the longest first."""
    parts = pl.Series(STAND.split(text)).str.replace_many(values, stands, leftmost=True).to_list()
    kept = STAND.findall(text)
    return "".join(part for pair in zip(parts, [*kept, ""], strict=True) for part in pair)


def _without_tail(text: str, tail: int) -> str:
    """The text without its last ``tail`` characters and without what they cut apart."""
    kept = text[:-tail]
    run = max(len(kept) - LONGEST_RUN, 0)
    place = max(kept.rfind(end, run) for end in _END_OF_RUN)
    return kept[: run if place < 0 else place + 1]
