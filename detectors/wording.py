"""Words and numbers of a learned finding, short and safe to show: agents choose the names in them."""

from __future__ import annotations

import hashlib

MAX_NAME = 80

KEY_LENGTH = 128


def plain(text: str, limit: int = MAX_NAME) -> str:
    """One line of printable characters, at most ``limit`` of them.

    >>> plain("read" + chr(10) + "secret", 20)
    'read secret'
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: limit * 2]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def short_key(text: str) -> str:
    """``text`` itself, or its beginning and a hash where it is longer than a name should be.

    Different texts keep different keys, so a detector's memory holds no text of any length.
    """
    if len(text) <= KEY_LENGTH:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[: KEY_LENGTH - 17]}#{digest[:16]}"


def one_in(p: float) -> str:
    """A probability as people say it, never rarer than it is.

    >>> one_in(1 / 712)
    '1 in 710'
    >>> one_in(0.5)
    '1 in 2'
    """
    turns = int(1 / p)
    if turns >= 100:
        step = 10 ** (len(str(turns)) - 2)
        turns = turns // step * step
    return f"1 in {max(1, turns):,}"


def number(value: float) -> str:
    """Three significant digits, without an exponent where people would not write one.

    >>> number(1234.5), number(0.123456), number(3.0)
    ('1,234', '0.123', '3')
    """
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def times(count: int, thing: str = "time") -> str:
    """A count with its noun.

    >>> times(1), times(2), times(0, "session")
    ('1 time', '2 times', '0 sessions')
    """
    return f"{count:,} {thing}" + ("" if count == 1 else "s")
