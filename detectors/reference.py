"""Healthy sessions to compare with, kept with what it takes to score them again.

A young profile finds everything surprising, so the scores of an agent's first sessions say more about
the profile than about the agent. Here they are scored anew as the profile grows, each as if it had not
been learned itself (leave-one-out, as in cross-conformal prediction; Vovk, Annals of Mathematics and
Artificial Intelligence 74, 2015).

A flood of attacks must neither lift the bound nor use up the budget. So later sessions are taken in
block by block, and a block with clearly more than the usual share of unusual ones (`FLOOD`) is left out.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import msgspec

from detectors.calibration import MAX_AGENTS, SHADOW, SHADOW_SESSIONS, Standing, stage
from detectors.sessions import Who

KEPT = 300
"""Sessions of an agent that are compared with; the oldest gives way."""

POOL = 6_000
"""Sessions of a role or tenant: agents are taken in until there are so many."""

GROWTH = 1.5
"""How much more must have been seen until the reference is scored again."""

BLOCK = 50
"""Sessions that are taken in together, or left out; the first ones are taken in one by one."""

FLOOD, SLACK = 1.25, 0.02
"""A block may hold ``FLOOD`` times the reference's own share of unusual sessions, plus ``SLACK``."""

BORROWED = 30
"""Sessions of its own from which an agent counts for more than what it borrows."""

EQUAL = 0.5
"""Bits within which scores are equal: the same act scores so differently while the profile grows."""

MAX_ALERTED = 1.5
"""Of sessions that were alerted on, a block may hold so many times the budget, or one."""

T = TypeVar("T")


class Kept(msgspec.Struct, Generic[T], array_like=True):
    """A session of the reference, and what it takes to score it again."""

    score: float
    session_id: str | None
    alerted: bool
    payload: T


class _Agent(Generic[T]):
    def __init__(self, who: Who, pooled: list[tuple[str, str]]) -> None:
        self.who = who
        self.pooled = pooled
        self.sessions = 0
        self.again = SHADOW_SESSIONS
        self.kept: deque[Kept[T]] = deque()
        self.staged: list[Kept[T]] = []
        self.ranked = array("d")

    @property
    def stage(self) -> str:
        return stage(self.sessions)


class Reference(Generic[T]):
    """Judges scores of sessions against those of healthy ones: of the agent, its role or its tenant.

    ``rescore`` gives the score that a kept session would have now; ``usual_below`` is the score from
    which a session counts as unusual.
    """

    def __init__(
        self,
        alpha: float,
        usual_below: float,
        rescore: Callable[[Who, T], float],
        max_agents: int = MAX_AGENTS,
        kept: int = KEPT,
    ) -> None:
        self.alpha = alpha
        self.usual_below = usual_below
        self.max_agents = max_agents
        self._rescore = rescore
        self._size = kept
        self._agents: OrderedDict[tuple[str, str], _Agent[T]] = OrderedDict()
        self._pools: dict[tuple[str, str], array[float]] = {}

    def judge(self, who: Who, score: float) -> Standing:
        """Where ``score`` stands now, and whether it alerts. Nothing is learned from it."""
        agent = self._agents.get(who[:2])
        if agent is None:
            return Standing(1.0, 0, "agent", 0, SHADOW, None, False)
        own = agent.ranked
        p_value, weight, compared = 1.0, 1, 0
        pools = [self._pools[place] for place in reversed(who.pools()) if place in self._pools]
        for ranked in (*pools, own):
            p_value = (_as_high(ranked, score) + weight * p_value) / (len(ranked) + weight)
            weight, compared = BORROWED, max(compared, len(ranked))
        p_value = max(p_value, 1 / (compared + 1))
        name = "agent" if len(own) >= BORROWED else "fleet"
        alerts = agent.stage != SHADOW and p_value <= self.alpha
        usual = own[len(own) // 2] if own else None
        return Standing(p_value, compared, name, agent.sessions, agent.stage, usual, alerts)

    def add(self, who: Who, one: Kept[T], cleared: bool = False) -> None:
        """A session that nothing spoke against is over. ``cleared``: somebody called it harmless."""
        agent = self._agent(who)
        agent.sessions += 1
        if cleared or len(agent.kept) < BLOCK:
            self._keep(agent, one)
        else:
            agent.staged.append(one)
            if len(agent.staged) >= BLOCK:
                self._take_block(agent)
        if agent.sessions >= agent.again:
            agent.again = int(agent.sessions * GROWTH)
            self._score_again(agent)

    def _take_block(self, agent: _Agent[T]) -> None:
        usual = _at_least(agent.ranked, self.usual_below) / len(agent.ranked)
        unusual = sum(one.score >= self.usual_below for one in agent.staged) / len(agent.staged)
        room = max(1, int(MAX_ALERTED * self.alpha * len(agent.staged)))
        if unusual <= FLOOD * usual + SLACK:
            for one in agent.staged:
                room -= one.alerted
                if room >= 0 or not one.alerted:
                    self._keep(agent, one)
        agent.staged.clear()

    def stage(self, who: Who) -> str:
        """How much is known of the agent."""
        agent = self._agents.get(who[:2])
        return SHADOW if agent is None else agent.stage

    def forget(self, tenant: str, agent_id: str, session_id: str) -> None:
        """A session turned out to be an attack: it is compared with no more."""
        agent = self._agents.get((tenant, agent_id))
        if agent is None:
            return
        agent.staged = [one for one in agent.staged if one.session_id != session_id]
        for one in [one for one in agent.kept if one.session_id == session_id]:
            agent.kept.remove(one)
            self._drop(agent, one.score)

    def rebase(self, who: Who) -> None:
        """The agent was changed on purpose: it starts in the shadow again."""
        agent = self._agents.get(who[:2])
        if agent is not None:
            agent.sessions, agent.again = 0, SHADOW_SESSIONS
            agent.staged.clear()

    def profiles(self) -> list[tuple[str, str, int, str]]:
        """Tenant, agent, sessions and stage of each agent, least recently learned first."""
        return [(*key, agent.sessions, agent.stage) for key, agent in self._agents.items()]

    def _agent(self, who: Who) -> _Agent[T]:
        agent = self._agents.get(who[:2])
        if agent is None:
            open_pools = [place for place in who.pools() if len(self._pools.get(place, ())) < POOL]
            agent = self._agents[who[:2]] = _Agent(who, open_pools)
            if len(self._agents) > self.max_agents:
                gone = self._agents.popitem(last=False)[1]
                for one in gone.kept:
                    self._drop(gone, one.score)
        self._agents.move_to_end(who[:2])
        return agent

    def _keep(self, agent: _Agent[T], one: Kept[T]) -> None:
        if len(agent.kept) >= self._size:
            self._drop(agent, agent.kept.popleft().score)
        agent.kept.append(one)
        self._rank(agent, one.score)

    def _score_again(self, agent: _Agent[T]) -> None:
        for one in agent.kept:
            self._drop(agent, one.score)
            one.score = self._rescore(agent.who, one.payload)
            self._rank(agent, one.score)

    def _rank(self, agent: _Agent[T], score: float) -> None:
        insort(agent.ranked, score)
        for place in agent.pooled:
            insort(self._pools.setdefault(place, array("d")), score)

    def _drop(self, agent: _Agent[T], score: float) -> None:
        for ranked in [agent.ranked, *(self._pools[place] for place in agent.pooled)]:
            del ranked[bisect_left(ranked, score)]
        for place in agent.pooled:
            if not self._pools[place]:
                del self._pools[place]

    def state(self) -> list[Any]:
        """Everything as plain data, in order."""
        return [
            [list(agent.who), [list(place) for place in agent.pooled], agent.sessions, agent.again,
             [msgspec.to_builtins(one) for one in agent.kept],
             [msgspec.to_builtins(one) for one in agent.staged]]
            for agent in self._agents.values()
        ]  # fmt: skip

    def restore(self, state: Iterable[Any], payload: Any) -> None:
        """Go on from ``state()``; ``payload`` is the type of the payloads."""
        self._agents, self._pools = OrderedDict(), {}
        for who, pooled, sessions, again, kept, staged in state:
            agent: _Agent[T] = _Agent(Who(*who), [(tenant, name) for tenant, name in pooled])
            agent.sessions, agent.again = sessions, again
            for one in kept:
                agent.kept.append(msgspec.convert(one, Kept[payload]))
                self._rank(agent, agent.kept[-1].score)
            agent.staged = [msgspec.convert(one, Kept[payload]) for one in staged]
            self._agents[agent.who[:2]] = agent


def _as_high(ranked: array[float], score: float) -> float:
    """How many are as high; one that is about equal counts half."""
    return len(ranked) - (bisect_left(ranked, score - EQUAL) + bisect_right(ranked, score + EQUAL)) / 2


def _at_least(ranked: array[float], score: float) -> int:
    return len(ranked) - bisect_left(ranked, score)
