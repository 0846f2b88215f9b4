"""Placeholders (modifier ``expand``): a site's lists put where a rule names them.

They are filled in before pySigma reads the rule, so that a value from a list goes through the
same modifiers as one that is written out. Source: Sigma specification 2.1.0, appendix modifiers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from detectors.sigma.refusal import RefusedError

Value = str | int | float
Lists = Mapping[str, Sequence[Value]]

MODIFIER = "expand"
_PLACEHOLDER = re.compile(r"%([A-Za-z_][A-Za-z0-9_.-]*)%")


@dataclass
class Expansion:
    """Fills in ``lists``; ``named`` are the lists that were asked for, ``missing`` those without a value."""

    lists: Lists
    named: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)

    def detection(self, given: Any) -> Any:
        """A rule's ``detection`` (or any part of it) with its placeholders filled in.

        Raises RefusedError for an ``expand`` without a placeholder.
        """
        if isinstance(given, list):
            return [self.detection(item) for item in given]
        if not isinstance(given, dict):
            return given
        filled = {}
        for key, value in given.items():
            name, *modifiers = key.split("|") if isinstance(key, str) else (key,)
            if MODIFIER in modifiers:
                plain = "|".join([name, *(one for one in modifiers if one != MODIFIER)])
                if plain in filled or plain in given:
                    raise RefusedError(
                        f"{key} and {plain} stand in one selection: write two selections and join them"
                    )
                filled[plain] = self._values(key, value)
            else:
                filled[key] = self.detection(value)
        return filled

    def _values(self, key: str, value: Any) -> list[Value]:
        values = value if isinstance(value, list) else [value]
        return [one for item in values for one in self._filled(key, item)]

    def _filled(self, key: str, item: Any) -> Iterator[Value]:
        names = _PLACEHOLDER.findall(item) if isinstance(item, str) else []
        if not names:
            raise RefusedError(f"{key}: expand needs a placeholder such as %internal_domains%, not {item!r}")
        self.named.update(dict.fromkeys(names))
        self.missing.update(dict.fromkeys(name for name in names if not self.lists.get(name)))
        if item == f"%{names[0]}%":
            yield from self.lists.get(names[0], ())
            return
        for chosen in product(*(self.lists.get(name, ()) for name in names)):
            parts = iter(chosen)
            yield _PLACEHOLDER.sub(lambda _, parts=parts: str(next(parts)), item)  # type: ignore[misc]
