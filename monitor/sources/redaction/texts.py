"""The texts of one record: looked at together, scrubbed one by one, and cut where they are far too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from monitor.sources.redaction.scrubber import LONG, Look, Scrubber

MARGIN = 32 << 10
"""Characters beyond the limit of a text that are looked at before it is cut: no value is longer."""

TAIL = 4 << 10
"""Characters taken from the end of a text that is longer than limit and margin together."""


class Long(NamedTuple):
    """A text beyond the limit: where it stands, its bytes as it came, and whether it was cut here."""

    place: str
    size: int
    cut: bool


class Texts:
    """The texts of one record, of which ``limit`` bytes each are kept; ``long`` are those beyond it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.long: list[Long] = []

    def look(self, scrubber: Scrubber, texts: Sequence[str]) -> Look | None:
        """How to scrub these texts; None where there is nothing to be found, and nothing to be cut."""
        seen = [text[: self.limit + MARGIN] for text in texts]
        long = [text for text in seen if len(text) > LONG]
        look = scrubber.look("\n".join([text for text in seen if len(text) <= LONG]), *long)
        if look is None and any(len(text) > self.limit for text in texts):
            return scrubber.nothing()
        return look

    def clean(self, scrubber: Scrubber, look: Look, place: str, text: str, name: str = "") -> str:
        """A text scrubbed; ``place`` names it among the long ones, ``look`` is one at it and others."""
        cut = len(text) > self.limit + MARGIN
        if len(text) > self.limit:
            self.long.append(Long(place, len(text.encode()), cut))
        if not cut:
            return scrubber.text(text, name, above=look)
        return scrubber.text(text[: self.limit + MARGIN], name, TAIL, look)
