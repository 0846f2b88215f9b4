"""Finds values of the wanted kinds in a text and puts masks or fingerprints in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from re import Match
from typing import Any

import msgspec
import polars as pl

from monitor.sources.redaction.kinds import Kind

MOST_NESTED = 4
"""JSON in a string in JSON and so on is opened to this depth; what is deeper is taken as text."""

Stand = Callable[[str, str], str]
"""What stands in the place of a value: of its kind, and of the value in its plain form."""


@dataclass(frozen=True)
class OwnPattern:
    """A site's expression, searched by the engine of the rules, whose time grows with the text alone."""

    name: str
    pattern: str

    def values(self, text: str) -> list[str]:
        """Everything in the text that matches, longest first."""
        found: list[str] = pl.Series([text]).str.extract_all(self.pattern)[0].to_list()
        return sorted({value for value in found if value}, key=len, reverse=True)


class Scrubber:
    """Scrubs texts of some kinds of values, always with the same result for the same text."""

    def __init__(self, kinds: Sequence[Kind], own: Sequence[OwnPattern], stand: Stand) -> None:
        self._kinds = kinds
        self._own = own
        self._stand = stand

    def text(self, value: str, depth: int = 0) -> str:
        """The text without such values; JSON stays JSON."""
        if depth < MOST_NESTED and value[:1] in '{["' and value[-1:] in '}]"':
            opened = self._json(value, depth)
            if opened is not None:
                return opened
        return self.plain(value)

    def plain(self, value: str) -> str:
        """The same for a text that is nothing but text."""
        lowered = value.lower()
        for kind in self._kinds:
            if not kind.hints or any(hint in lowered for hint in kind.hints):
                value = kind.pattern.sub(lambda match, kind=kind: self._replaced(kind, match), value)  # type: ignore[misc]
        for own in self._own:
            for found in own.values(value):
                value = value.replace(found, self._stand(own.name, found))
        return value

    def _replaced(self, kind: Kind, match: Match[str]) -> str:
        group = 1 if kind.pattern.groups else 0
        value = match[group]
        if not kind.valid(value) or value.startswith("["):
            return match[0]
        begin, end = match.start(group) - match.start(), match.end(group) - match.start()
        return match[0][:begin] + self._stand(kind.name, kind.plain(value)) + match[0][end:]

    def _json(self, value: str, depth: int) -> str | None:
        """JSON text with its strings scrubbed; None where it is none, the text itself where nothing was."""
        try:
            found = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
        if not isinstance(found, dict | list | str):
            return None
        clean = self.walk(found, depth + 1)
        return value if clean == found else msgspec.json.encode(clean).decode()

    def walk(self, value: Any, depth: int = 0, key: str = "") -> Any:
        """Decoded JSON with its strings and keys scrubbed.

        A value is also looked at together with its key, which may say that it is a secret.
        """
        if isinstance(value, str):
            clean = self.text(value, depth)
            return self._beside(key, value) if clean == value and key else clean
        if isinstance(value, list):
            return [self.walk(item, depth, key) for item in value]
        if isinstance(value, dict):
            return {self.plain(name): self.walk(inner, depth, name) for name, inner in value.items()}
        if isinstance(value, int | float) and not isinstance(value, bool):
            clean = self.plain(str(value))
            return value if clean == str(value) else clean
        return value

    def _beside(self, key: str, value: str) -> str:
        sign = f"{key}="
        clean = self.plain(sign + value)
        return clean.removeprefix(sign) if clean.startswith(sign) else value
