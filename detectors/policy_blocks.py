"""Repeated policy blocks: more refusals than an agent's own past explains.

Refusals are counted in four sliding windows of event time and compared with the agent's windows
of at least seven days ago, so that an attack does not become its own excuse. Windows in which
the agent did nothing do not count. A Poisson CUSUM beside them finds slow growth. A session's
score is its most surprising moment, and is calibrated like any other.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from detectors.base import MAX_EVENT_IDS, Finding
from detectors.calibration import FULL, MAX_AGENTS, Budget, Calibrator, Standing
from detectors.learner import CalibratedLearner, Event
from detectors.refusals import (
    SESSION,
    SLOW,
    WINDOWS,
    Histories,
    Refusal,
    Refusals,
    Rise,
    Surprise,
)
from detectors.sessions import DAY, HOUR, MAX_LIVE, Live, SessionTable
from detectors.wording import number, one_in, plain, short_key, times

MAX_CALLS = 64

REPEATED = 3
"""Fewer refusals than this are no pattern, however rare they are."""

CALM = HOUR
"""After a finding, at least this long without another one of the same agent."""

SPOKEN_FOR = {**WINDOWS, SESSION: CALM, SLOW: DAY}
"""How long a finding about each window stands for those that follow."""

BLOCKABLE = frozenset({"tool.requested", "tool.approved", "tool.executed", "model.invoked"})


class BlockSession(Live, array_like=True, kw_only=True):
    """A live session. ``calls`` were refused already; ``unnamed`` counts refusals without a call id."""

    calls: list[str] = msgspec.field(default_factory=list)
    unnamed: int = 0
    refused: int = 0
    worst: float = 0.0
    alerted: bool = False


class PolicyBlocks(CalibratedLearner[BlockSession]):
    """Finds the agent that does not take no for an answer."""

    name = "policy_blocks"
    title = "More policy blocks than usual"
    version = "1"
    state_version = 3
    columns = ("policy_decision", "outcome", "tool_call_id")
    tags = ("owasp-asi.2026.asi02", "owasp-asi.2026.asi10")

    def __init__(
        self, budget: Budget | None = None, max_live: int = MAX_LIVE, max_agents: int = MAX_AGENTS
    ) -> None:
        self.table = SessionTable(BlockSession, max_live)
        self.calibrator = Calibrator((budget or Budget()).alpha(self.name), max_agents=max_agents)
        self.max_agents = max_agents
        self._agents: OrderedDict[tuple[str, str], Refusals] = OrderedDict()
        self._pools: dict[str, Histories] = {}
        self._calm: OrderedDict[tuple[str, str, str, bool], int] = OrderedDict()

    def seen(self, live: BlockSession, event: Event, values: tuple[Any, ...]) -> Finding | None:
        """Note activity; judge the agent's counts where the event is a refusal."""
        agent, pool = self._agent(live, event.moment)
        refusal = _is_refusal(live, event, values)
        agent.active(event.moment, pool, live.replayed, counts=not refusal)
        if not refusal:
            return None
        if not agent.refused(Refusal(event.moment, event.event_id, live.session_id), pool, live.replayed):
            return None
        live.refused += 1
        surprise = agent.surprise(pool, live.session_id, live.refused, live.replayed)
        found = self._judge(live, event, agent, surprise)
        if live.alerted or live.tainted:
            agent.taint(event.moment)
        return found

    def _judge(self, live: BlockSession, event: Event, agent: Refusals, surprise: Surprise) -> Finding | None:
        score = -math.log10(surprise.p)
        if score <= live.worst or surprise.observed < REPEATED:
            return None
        live.worst = score
        standing = self.calibrator.judge(live.who, score)
        self.tell(live, event.event_id, event.at, score, standing)
        if not standing.alerts:
            return None
        live.alerted = True
        if surprise.window == SLOW:
            agent.rise[live.replayed] = Rise()
        if self._is_calm(live, surprise.window, event.moment):
            return None
        return self._found(live, event, surprise, standing)

    def ended(self, live: BlockSession, row: int) -> None:
        """A session's worst moment joins those that later ones are compared with."""
        if not self.counted(live, live.worst, live.alerted):
            return
        agent = self._agents.get(live.who[:2])
        if agent is not None:
            agent.session_over(live.refused, live.session_id)

    def verdict(self, tenant: str, agent_id: str, session_id: str, confirmed: bool) -> None:
        """Somebody judged an alert; what a confirmed attack left behind is not compared with."""
        super().verdict(tenant, agent_id, session_id, confirmed)
        agent = self._agents.get((tenant, agent_id))
        if confirmed and agent is not None:
            agent.confirmed(session_id)

    def _agent(self, live: BlockSession, moment: int) -> tuple[Refusals, Histories]:
        place = live.who[:2]
        agent = self._agents.get(place)
        if agent is None:
            agent = self._agents[place] = Refusals(moment)
            if len(self._agents) > self.max_agents:
                self._agents.popitem(last=False)
        else:
            self._agents.move_to_end(place)
        pool = self._pools.get(live.who.tenant)
        if pool is None:
            pool = self._pools[live.who.tenant] = Histories()
        return agent, pool

    def _is_calm(self, live: BlockSession, window: str, moment: int) -> bool:
        """Whether the agent was alerted on lately: each window speaks once in its own length."""
        own, every = (*live.who[:2], window, live.replayed), (*live.who[:2], "", live.replayed)
        calm = moment < max(self._calm.get(own, moment), self._calm.get(every, moment))
        # never back: a timestamp from long ago must not end the calm
        self._calm[own] = max(self._calm.get(own, moment), moment + SPOKEN_FOR[window])
        if not calm:
            self._calm[every] = max(self._calm.get(every, moment), moment + CALM)
        for place in (own, every):
            if place in self._calm:
                self._calm.move_to_end(place)
        while len(self._calm) > self.max_agents:
            self._calm.popitem(last=False)
        return calm

    def _found(self, live: BlockSession, event: Event, surprise: Surprise, standing: Standing) -> Finding:
        window, observed, expected, p, refusals = surprise
        sessions = Counter(refusal.session_id for refusal in refusals)
        ids = [refusal.event_id for refusal in refusals]
        half = MAX_EVENT_IDS // 2
        when = "in a slow growth" if window == SLOW else f"within {window}"
        return self.finding(
            live,
            row=event.row,
            level="medium" if standing.stage == FULL else "low",
            reason=(
                f"{times(observed, 'policy block')} {when}, where {number(expected)} are expected of this "
                f"agent; {one_in(standing.p_value)} sessions of this {standing.pool}"
            ),
            evidence={
                "observed": {"policy_blocks": observed},
                "expected": {"policy_blocks": round(expected, 3)},
                "window": window,
                "p_value": standing.p_value,
                "p_of_the_count": p,
                "sessions": {plain(name or "none"): count for name, count in sessions.most_common(10)},
                "profile": standing.profile(),
            },
            event_ids=tuple(ids if len(ids) <= MAX_EVENT_IDS else ids[:half] + ids[-half:]),
            event_count=len(ids),
            session_id=live.session_id if len(sessions) == 1 else None,
            parts=(window, ids[0]),
        )

    def state(self) -> dict[str, Any]:
        """Live sessions, agents, pools and calibration as plain data."""
        return {
            "version": self.state_version,
            "table": self.table.state(),
            "calibrator": self.calibrator.state(),
            "agents": [[*place, agent.state()] for place, agent in self._agents.items()],
            "pools": [[name, pool.state()] for name, pool in self._pools.items()],
            "calm": [[*place, until] for place, until in self._calm.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``. Raises ValueError where the version is not known."""
        self.checked(state)
        self.table.restore(state["table"])
        self.calibrator.restore(state["calibrator"])
        self._agents = OrderedDict(
            ((tenant, agent), Refusals.restored(known)) for tenant, agent, known in state["agents"]
        )
        self._pools = {name: Histories(*pool) for name, pool in state["pools"]}
        self._calm = OrderedDict(
            ((tenant, agent, window, replayed), until)
            for tenant, agent, window, replayed, until in state["calm"]
        )


def _is_refusal(live: BlockSession, event: Event, values: tuple[Any, ...]) -> bool:
    """Whether the event refuses something that was not refused before: one call, one refusal."""
    decision, outcome, call_id = values
    if event.kind == "policy.checked":
        if decision != "deny" and outcome != "blocked":
            return False
    elif outcome != "blocked" or event.kind not in BLOCKABLE:
        return False
    if call_id:
        name = short_key(call_id)
        if name in live.calls:
            return False
        live.calls = [*live.calls, name][-MAX_CALLS:]
    elif event.kind == "policy.checked":
        live.unnamed += 1
    elif live.unnamed:
        live.unnamed -= 1
        return False
    return True
