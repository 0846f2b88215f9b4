"""Who was heard, by which source and when: what makes silence mean something."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

MAX_NAMES = 20_000
"""Agents, and sessions, that are remembered; those heard longest ago are forgotten."""

MAX_VOICES = 64
"""Pairs of environment and source that are kept for one agent or session."""

RECENT_US = 600_000_000
"""A source that spoke of a target within this time of the last that did is one of its own."""

Row = tuple[str, str, str, str | None, str | None, int, int | None]
"""Tenant, source, agent, environment, session, last heard and last acted (event time, µs)."""


@dataclass
class Voice:
    """When something was last heard, and when it last acted; microseconds."""

    heard: int
    acted: int | None


Name = tuple[str, str, str | None]
Voices = dict[tuple[str | None, str], Voice]


class Heard:
    """A bounded memory of the agents and sessions in the live telemetry."""

    def __init__(self, most: int = MAX_NAMES) -> None:
        self._most = most
        self._agents: OrderedDict[Name, Voices] = OrderedDict()
        self._sessions: OrderedDict[Name, Voices] = OrderedDict()

    def take(self, rows: Iterable[Row]) -> None:
        """Note one micro-batch, a row for each group."""
        for tenant, source, agent_id, environment, session_id, heard, acted in rows:
            _note(self._agents, (tenant, agent_id, None), (environment, source), heard, acted)
            if session_id is not None:
                _note(self._sessions, (tenant, agent_id, session_id), (environment, source), heard, acted)
        for names in (self._agents, self._sessions):
            while len(names) > self._most:
                names.popitem(last=False)

    def of(
        self, tenant: str, agent_id: str, environment: str | None, session_id: str | None
    ) -> tuple[set[str], int | None]:
        """The sources that lately spoke of a target, and when it last acted.

        ``session_id`` None means the whole agent. Where either side names no environment,
        it is taken for the same.
        """
        known = self._agents if session_id is None else self._sessions
        voices = [
            (source, voice)
            for (where, source), voice in known.get((tenant, agent_id, session_id), {}).items()
            if environment is None or where in (None, environment)
        ]
        last = max((voice.heard for _, voice in voices), default=0)
        acted = max((voice.acted for _, voice in voices if voice.acted is not None), default=None)
        return {source for source, voice in voices if voice.heard >= last - RECENT_US}, acted


def _note(
    names: OrderedDict[Name, Voices], name: Name, place: tuple[str | None, str], heard: int, acted: int | None
) -> None:
    voices = names.get(name)
    if voices is None:
        voices = names[name] = {}
    else:
        names.move_to_end(name)
    voice = voices.get(place)
    if voice is None:
        if len(voices) < MAX_VOICES:
            voices[place] = Voice(heard, acted)
        return
    voice.heard = max(voice.heard, heard)
    if acted is not None:
        voice.acted = max(acted, voice.acted or 0)
