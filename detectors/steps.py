"""Which events are steps of their own: requests for a call, and runs that nobody requested."""

from __future__ import annotations

import msgspec

from detectors.wording import short_key

MAX_OPEN_CALLS = 64


class Calls(msgspec.Struct, array_like=True):
    """Calls of one session that were requested and have not run; ``unnamed`` counts those without id."""

    open: list[str] = []
    unnamed: int = 0

    def begins(self, kind: str, call_id: str | None) -> bool:
        """Whether the event is a step of its own."""
        name = short_key(call_id) if call_id else ""
        if kind == "tool.requested":
            if name:
                self.open = [*self.open, name][-MAX_OPEN_CALLS:]
            else:
                self.unnamed += 1
            return True
        if kind != "tool.executed":
            return False
        if name in self.open:
            self.open = [one for one in self.open if one != name]
            return False
        if self.unnamed:
            self.unnamed -= 1
            return False
        return True
