"""Which calls change or reach something: by ``effect`` where it is sent, also for this tool before;
else by the tool's verb.

A tool whose name begins with a word that reads is taken to read; any other may do anything. Reading
tools are looked at too, but only for whom they reach.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from detectors.provenance.words import first_word

READING = frozenset({
    "get", "read", "list", "search", "find", "lookup", "look", "fetch", "query", "view", "show", "check",
    "describe", "count", "browse", "open", "download", "retrieve", "load", "select", "scan", "inspect",
    "peek", "head", "tail", "cat", "ls", "grep", "stat", "status", "help", "explain", "summarize",
    "calculate", "compute", "compare", "validate", "verify", "preview", "ask", "think", "plan", "wait",
    "sleep",
})  # fmt: skip
"""Words that begin the names of tools which change nothing."""

MAX_TOOLS = 20_000


class Effects:
    """Which tools of a tenant act. What was sent last about a tool holds until something else is sent.

    >>> effects = Effects()
    >>> effects.acts("acme", "read_file", None), effects.acts("acme", "mail.sendMessage", None)
    (False, True)
    >>> effects.acts("acme", "read_file", "external"), effects.acts("acme", "read_file", None)
    (True, True)
    """

    def __init__(self, reading: frozenset[str] = READING) -> None:
        self._reading = reading
        self._sent: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._guessed: dict[str, bool] = {}

    def acts(self, tenant: str, tool: str, effect: str | None) -> bool:
        """Whether the call may change something."""
        if effect is not None:
            acts = effect != "read"
            self._sent[tenant, tool] = acts
            self._sent.move_to_end((tenant, tool))
            if len(self._sent) > MAX_TOOLS:
                self._sent.popitem(last=False)
            return acts
        sent = self._sent.get((tenant, tool)) if self._sent else None
        return self._guess(tool) if sent is None else sent

    def _guess(self, tool: str) -> bool:
        guess = self._guessed.get(tool)
        if guess is None:
            if len(self._guessed) >= MAX_TOOLS:
                self._guessed.clear()
            guess = self._guessed[tool] = first_word(tool) not in self._reading
        return guess

    def state(self) -> list[Any]:
        """What was sent, in order, as plain data."""
        return [[*place, acts] for place, acts in self._sent.items()]

    def restore(self, state: list[Any]) -> None:
        """Go on from ``state()``."""
        self._sent = OrderedDict(((tenant, tool), acts) for tenant, tool, acts in state)
