r"""Regular expressions as ClickHouse (RE2) must be asked, so that they find what polars finds.

Both engines are RE2-like, and a rule's expression compiles in both (``parse.POLICY``), but:
``.`` matches a line's end in ClickHouse unless told otherwise; ``\d``, ``\w`` and ``\s`` are ASCII
there and Unicode here; the same ``\p{..}`` may come from another version of Unicode. Classes are
therefore written out as ranges, as the stream's own engine sees them. What means something else
there, or nothing, is refused.
"""

from __future__ import annotations

import functools
import re

import numpy as np
import polars as pl

from detectors.sigma.sql_text import NoSql

_ESCAPE = re.compile(r"\\(?:[pP](?:\{[^}]*\}|.)|x(?:\{[^}]*\}|..)|.)", re.DOTALL)
_POSIX = re.compile(r"\[:\^?\w+:\]")
_FLAGS = re.compile(r"\(\?(?!P?<)([a-zA-Z-]*)[:)]")
_CLASSES = frozenset("dDwWsSpP")
_SET_OPERATORS = ("&&", "--", "~~")
_KNOWN_FLAGS = frozenset("imsU-")


def re2(pattern: str) -> str:
    """The expression for ClickHouse's ``match``. Raises NoSql for what has no equal there."""
    return "(?-s)" + _Translation(pattern).text()


class _Translation:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def text(self) -> str:
        done = []
        while self._at < len(self._pattern):
            here = self._pattern[self._at]
            if here == "\\":
                done.append(self._escape())
            elif here == "[":
                done.append(self._set())
            else:
                self._check_flags()
                done.append(here)
                self._at += 1
        return "".join(done)

    def _take(self, found: re.Match[str] | None) -> str:
        if found is None:
            raise NoSql(f"the regular expression {self._pattern[:80]!r} breaks off")
        self._at = found.end()
        return found[0]

    def _escape(self) -> str:
        escape = self._take(_ESCAPE.match(self._pattern, self._at))
        if escape[1] in _CLASSES:
            return f"[{_ranges(escape)}]"
        if escape[1] in "<>B" or (escape[1] == "b" and self._pattern.startswith("{", self._at)):
            raise NoSql(f"ClickHouse has no {escape} as the stream sees it")
        return escape

    def _check_flags(self) -> None:
        found = _FLAGS.match(self._pattern, self._at)
        if found and not _KNOWN_FLAGS.issuperset(found[1]):
            raise NoSql(f"ClickHouse knows no flags {found[1]}")

    def _set(self) -> str:
        opened = self._take(re.compile(r"\[\^?\]?").match(self._pattern, self._at))
        # an end of the set that comes first is a member of it
        done = [opened.replace("]", "\\]")]
        while not self._pattern.startswith("]", self._at):
            done.append(self._member())
        self._at += 1
        return "".join((*done, "]"))

    def _member(self) -> str:
        if self._pattern.startswith(_SET_OPERATORS, self._at):
            raise NoSql("ClickHouse knows no operators within [ ]")
        here = self._pattern[self._at : self._at + 1]
        if here == "[":
            posix = _POSIX.match(self._pattern, self._at)
            if posix is None:
                raise NoSql("ClickHouse knows no [ ] within [ ]")
            return self._take(posix)
        if here == "\\":
            escape = self._take(_ESCAPE.match(self._pattern, self._at))
            return _ranges(escape) if escape[1] in _CLASSES else escape
        return self._take(re.compile(r".", re.DOTALL).match(self._pattern, self._at))


@functools.cache
def _characters() -> tuple[np.ndarray, pl.Series]:
    points = np.concatenate([np.arange(0xD800), np.arange(0xE000, 0x110000)])
    return points, pl.Series(list(map(chr, points.tolist())))


@functools.cache
def _ranges(escape: str) -> str:
    r"""The characters of a class (``\w``, ``\p{Lu}``) as ranges, to stand within ``[ ]``."""
    points, characters = _characters()
    inside = points[characters.str.contains(rf"\A{escape}\z").to_numpy()]
    breaks = np.flatnonzero(np.diff(inside) != 1)
    firsts = inside[np.concatenate([[0], breaks + 1])].tolist()
    lasts = inside[np.concatenate([breaks, [len(inside) - 1]])].tolist()
    pairs = zip(firsts, lasts, strict=True)
    return "".join(
        f"\\x{{{one:x}}}" if one == two else f"\\x{{{one:x}}}-\\x{{{two:x}}}" for one, two in pairs
    )
