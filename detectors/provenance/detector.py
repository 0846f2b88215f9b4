"""A call whose arguments came from where they should not: from a tool's result instead of the request.

Every value of a call is traced to the session's request, to the result of a tool, or to neither, and
weighed against what is usual (`profile`). A call is judged at the request for it, before it runs, and
learned some hours after its session is over, unless a rule or a verdict spoke against it. A session as
unusual as an attack is learned only once somebody has called it harmless; otherwise a flood of attacks
would be what is usual.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from detectors.base import Finding
from detectors.calibration import FULL, MAX_AGENTS, SHADOW, Budget
from detectors.delayed import DELAY, MAX_WAITING, Delayed, Ended
from detectors.learner import REBASING, Event, SessionLearner
from detectors.provenance.calls import MOST_BITS, Call, Remembered, Traced
from detectors.provenance.effects import READING, Effects
from detectors.provenance.explain import explained
from detectors.provenance.profile import MAX_CONTEXTS, MAX_USED, Profile
from detectors.provenance.sources import REQUEST, Sources
from detectors.provenance.values import IDENTIFIER, values
from detectors.provenance.words import name_words
from detectors.reference import KEPT, Kept, Reference
from detectors.sessions import MAX_LIVE, Live, SessionTable, Who
from detectors.steps import Calls
from detectors.wording import short_key

USUAL_BELOW = MOST_BITS
"""A session that reaches as many bits is not learned by itself. Measured on recorded sessions: nine in
ten harmless ones stay below, and hardly an attack does."""

MAX_CALLS = 200
"""Calls of one session that are kept for learning; later ones are judged all the same."""

WORST = 3
"""Calls of a session that are kept to score it again."""

MAX_TEXT = 32 << 20
"""Characters of all open sessions together; the session longest without news is searched no more."""


class ProvenanceSession(Live, array_like=True, kw_only=True):
    """A live session, what it was told, and what its calls would teach."""

    sources: Sources = msgspec.field(default_factory=Sources)
    requested: Calls = msgspec.field(default_factory=Calls)
    calls: list[Call] = msgspec.field(default_factory=list)
    worst: float = 0.0
    alerted: bool = False


class Provenance(SessionLearner[ProvenanceSession]):
    """Finds the session whose worst call is rarer than the budget allows."""

    name = "provenance"
    title = "Argument from an unusual source"
    version = "1"
    state_version = 2
    columns = ("tool_name", "tool_call_id", "tool_args", "tool_result", "task_goal", "effect", "change_kind")
    tags = ("owasp-asi.2026.asi01", "owasp-asi.2026.asi02", "atlas.aml-t0051.001")

    def __init__(
        self,
        budget: Budget | None = None,
        max_live: int = MAX_LIVE,
        max_agents: int = MAX_AGENTS,
        max_contexts: int = MAX_CONTEXTS,
        max_used: int = MAX_USED,
        max_text: int = MAX_TEXT,
        max_waiting: int = MAX_WAITING,
        kept: int = KEPT,
        reading: frozenset[str] = READING,
    ) -> None:
        """``reading`` are words that begin the names of tools which change nothing."""
        self.table = SessionTable(ProvenanceSession, max_live)
        self.profile = Profile(max_agents, max_contexts, max_used)
        alpha = (budget or Budget()).alpha(self.name)
        self.reference: Reference[Remembered] = Reference(
            alpha, USUAL_BELOW, self.profile.without, max_agents, kept
        )
        self.delayed: Delayed[list[Call]] = Delayed(max_waiting)
        self.max_text = max_text
        self._effects = Effects(reading)
        self._texts: OrderedDict[tuple[str, bool, str, str], ProvenanceSession] = OrderedDict()
        self._held = 0

    def seen(self, live: ProvenanceSession, event: Event, values: tuple[Any, ...]) -> Finding | None:
        """Judge the call that this event asks for, if any; take in what it tells."""
        tool, call_id, arguments, result, goal, effect, _ = values
        if goal:
            self._told(live, None, goal)
        if tool is None:
            return None
        found = None
        if live.requested.begins(event.kind, call_id):
            found = self._call(live, event, short_key(tool), arguments, effect)
        if result and event.kind == "tool.executed":
            self._told(live, tool, result)
        return found

    def _told(self, live: ProvenanceSession, tool: str | None, text: str) -> None:
        place = (live.who.tenant, live.replayed, live.who.agent_id, live.key)
        before = live.sources.size
        if tool is None:
            live.sources.asked(text)
        else:
            live.sources.told(tool, text)
        self._held += live.sources.size - before
        self._texts[place] = live
        self._texts.move_to_end(place)
        while self._held > self.max_text and len(self._texts) > 1:
            oldest = self._texts.popitem(last=False)[1]
            self._held -= oldest.sources.size
            oldest.sources = Sources(full=True)

    def _call(
        self, live: ProvenanceSession, event: Event, tool: str, arguments: str | None, effect: str | None
    ) -> Finding | None:
        call, texts = self._traced(live, tool, arguments, effect)
        if not call.values:
            return None
        weighed = self.profile.weigh(live.who, call)
        call.score = weighed.score
        if len(live.calls) < MAX_CALLS:
            live.calls.append(call)
        if weighed.score <= live.worst:
            return None
        live.worst = weighed.score
        if live.alerted and self.listen is None:
            return None
        standing = self.reference.judge(live.who, weighed.score)
        self.tell(live, event.event_id, event.at, weighed.score, standing, weighed.score)
        if live.alerted or not standing.alerts:
            return None
        live.alerted = True
        reason, evidence = explained(self.profile, live.who, call, texts, weighed, standing)
        return self.finding(
            live,
            row=event.row,
            level="medium" if standing.stage == FULL else "low",
            reason=reason,
            evidence=evidence,
            event_ids=(event.event_id,),
            event_count=1,
            session_id=live.session_id,
            parts=(live.session_id, live.first_event),
        )

    def _traced(
        self, live: ProvenanceSession, tool: str, arguments: str | None, effect: str | None
    ) -> tuple[Call, list[str]]:
        """The call with where its values came from, and their texts; a value is left out where that
        is not known.
        """
        acts = self._effects.acts(live.who.tenant, tool, effect)
        sources = live.sources
        used = self.profile.used(live.who)
        traced: list[Traced] = []
        texts: list[str] = []
        asked = not sources.request  # where no request is known, nothing can be missing in it
        for argument, text, kind in values(arguments):
            if not (acts or kind == IDENTIFIER):
                continue
            origin = sources.origin(text)
            if origin is None:
                continue
            digest = b""
            if origin[0] == REQUEST:
                asked = True
            elif kind == IDENTIFIER:
                place = f"{tool}\x1f{argument}\x1f{text}".encode("utf-8", "surrogatepass")
                digest = hashlib.blake2b(place, digest_size=8).digest()
            traced.append(Traced(argument, kind, *origin, digest, digest in used))
            texts.append(text)
        named = not sources.request or any(word in sources.asked_words for word in name_words(tool))
        return Call(tool, traced, asked, named), texts

    def ended(self, live: ProvenanceSession, row: int) -> None:
        """A session is over; those that have waited are learned."""
        place = (live.who.tenant, live.replayed, live.who.agent_id, live.key)
        if self._texts.pop(place, None) is not None:
            self._held -= live.sources.size
        if live.calls and not live.tainted:
            due = live.clock + DELAY
            session = Ended(due, live.who, live.session_id, live.worst, live.alerted, live.calls)
            self.delayed.put(session, live.replayed)
        for over in self.delayed.due(live.who.tenant, live.replayed, live.clock):
            self._learn(over)

    def _learn(self, over: Ended[list[Call]]) -> None:
        learned = over.cleared or over.score < USUAL_BELOW or self.reference.stage(over.who) == SHADOW
        if learned:
            self.profile.learn(over.who, over.payload)
        worst = sorted(over.payload, key=lambda call: -call.score)[:WORST]
        kept = Kept(over.score, over.session_id, over.alerted, Remembered(learned, worst))
        self.reference.add(over.who, kept, over.cleared)

    def verdict(self, tenant: str, agent_id: str, session_id: str, confirmed: bool) -> None:
        """Somebody judged an alert: an attack is never learned; a false alarm is, and need not wait."""
        super().verdict(tenant, agent_id, session_id, confirmed)
        if confirmed:
            self.delayed.drop(tenant, agent_id, session_id)
            self.reference.forget(tenant, agent_id, session_id)
        else:
            self.delayed.clear(tenant, agent_id, session_id)

    def declared(self, who: Who, event: Event, values: tuple[Any, ...]) -> None:
        """After a declared change other calls are to be expected: they are learned first."""
        if values[-1] in REBASING:
            self.reference.rebase(who)

    def profiles(self) -> list[tuple[str, str, int, str]]:
        """Tenant, agent, sessions counted and stage of each known agent, least recent first."""
        return self.reference.profiles()

    def state(self) -> dict[str, Any]:
        """Live and waiting sessions, habits and reference as plain data."""
        return {
            "version": self.state_version,
            "table": self.table.state(),
            "profile": self.profile.state(),
            "reference": self.reference.state(),
            "delayed": self.delayed.state(),
            "effects": self._effects.state(),
            "texts": [list(place) for place in self._texts],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``. Raises ValueError where the version is not known."""
        self.checked(state)
        self.table.restore(state["table"])
        self.profile.restore(state["profile"])
        self.reference.restore(state["reference"], Remembered)
        self.delayed.restore(state["delayed"], list[Call])
        self._effects.restore(state["effects"])
        self._texts = OrderedDict()
        for tenant, replayed, agent, place in state["texts"]:
            live = self.table.lanes[tenant, replayed].live[agent, place]
            self._texts[tenant, replayed, agent, place] = live
        self._held = sum(live.sources.size for live in self._texts.values())
