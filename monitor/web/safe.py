"""Text that an agent controls, made harmless to look at: bounded, escaped, nothing invisible.

Escaping alone is not enough. Bidirectional controls reorder what an analyst reads, format
characters hide text from the eye but not from the agent, and terminal sequences bite whoever
pastes them. Each is shown as what it is (Unicode TR36, "Bidirectional Text Spoofing").
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from markupsafe import Markup, escape

LIMIT = 400
"""Most characters shown where a template names no other limit."""

MOST_MARKS = 3
"""Combining marks on one letter; more of them paint over the neighbouring lines."""

HIDDEN = Markup('<span class="ctl" title="hidden character">{}</span>')

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_ALLOWED = frozenset("\n\t")


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Runs of plain text (False), and the names of characters that must be shown by name (True)."""
    start = marks = 0
    for index, char in enumerate(text):
        if char.isascii() and (char.isprintable() or char in _ALLOWED):
            marks = 0
            continue
        category = unicodedata.category(char)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        hidden = category in _INVISIBLE or marks > MOST_MARKS or "\U000e0100" <= char <= "\U000e01ef"
        if hidden:
            if start < index:
                yield text[start:index], False
            yield _name(char), True
            start = index + 1
    if start < len(text):
        yield text[start:], False


def _name(char: str) -> str:
    code = ord(char)
    if code == 0x1B:
        return "ESC"
    return f"U+{code:04X}"


def _bounded(value: object, limit: int) -> tuple[str, int]:
    text = value if isinstance(value, str) else str(value)
    return text[:limit], max(0, len(text) - limit)


def safe_plain(value: object, limit: int = LIMIT) -> str:
    """For attributes and plain text: hidden characters as ⟨U+202E⟩, cut after ``limit`` characters."""
    if value is None:
        return ""
    text, rest = _bounded(value, limit)
    shown = "".join(f"⟨{piece}⟩" if hidden else piece for piece, hidden in _pieces(text))
    return f"{shown}… (+{rest})" if rest else shown


def safe_text(value: object, limit: int = LIMIT) -> Markup:
    """For page text: escaped, isolated from the direction around it, hidden characters marked."""
    if value is None:
        return Markup()
    text, rest = _bounded(value, limit)
    parts = [HIDDEN.format(piece) if hidden else escape(piece) for piece, hidden in _pieces(text)]
    if rest:
        parts.append(Markup('<span class="cut" title="{} more characters">… +{}</span>').format(rest, rest))
    return Markup("<bdi>{}</bdi>").format(Markup().join(parts))
