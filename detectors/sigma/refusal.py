"""How a rule is refused."""

from __future__ import annotations


class RefusedError(ValueError):
    """A rule asks for something that would not be judged as it is written; says what to do."""
