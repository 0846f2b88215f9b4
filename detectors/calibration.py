"""From raw scores to p-values that hold, and the budget of false alerts.

A score is compared with the scores of earlier sessions that are taken to be healthy
(conformal prediction, Vovk, Gammerman and Shafer 2005, section 2.3): with ``n`` of them,
``p = (1 + number at least as high) / (n + 1)``. Whatever the scores mean, a healthy session
exceeds the bound ``p <= alpha`` in a share ``alpha`` of cases, as long as it is like the earlier
ones. A p-value below ``1 / (n + 1)`` cannot be claimed, so an agent with too few sessions is
compared with its role, and then with all agents of its tenant.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from detectors.sessions import DAY, Who

SHADOW, YOUNG, FULL = "shadow", "young", "full"

SHADOW_SESSIONS = 50
"""An agent with fewer sessions than this is watched and never alerted on."""

YOUNG_SESSIONS = 200
"""Below this many sessions findings are of level low."""


def stage(sessions: int) -> str:
    """How much is known of an agent after so many sessions."""
    if sessions < SHADOW_SESSIONS:
        return SHADOW
    return YOUNG if sessions < YOUNG_SESSIONS else FULL


WARM_SESSIONS = 20
"""Scores before this many sessions say more about an empty profile than about the agent."""

MAX_ALERTED = 1.5
"""Measured: the realised share of alerts is .95 to 1.07 of the one asked for, and of a flood of
attacks, one session in two, 98% are found. At 1 it is 1.4 to 2.2 of the one asked for; at 2 a
quarter to a half of the flood is missed."""

HOLD = DAY
"""An alert has this much event time to be confirmed before its session counts as healthy."""

MAX_HELD = 5_000

AGENT_WINDOW, POOL_WINDOW = 1_000, 4_000
MAX_AGENTS = 10_000


@dataclass(frozen=True)
class Budget:
    """How many false alerts all learning detectors together may raise, split by ``shares``."""

    false_alerts_per_1000_sessions: float = 5.0
    shares: Mapping[str, float] = field(
        default_factory=lambda: {"provenance": 1.1, "tool_sequence": 0.1, "policy_blocks": 0.1,
                                 "session_outlier": 0.05}
    )  # fmt: skip

    def alpha(self, detector: str) -> float:
        """The share of sessions that are no attack in which ``detector`` may alert."""
        return self.false_alerts_per_1000_sessions / 1_000 * self.shares[detector]


@dataclass(frozen=True)
class Standing:
    """Where a score stands. ``pool`` says among whose sessions: ``agent``, ``role`` or ``fleet``.

    ``usual`` is the median score of the agent's own sessions, None while there are none.
    """

    p_value: float
    size: int
    pool: str
    sessions: int
    stage: str
    usual: float | None
    alerts: bool

    def profile(self) -> dict[str, Any]:
        """What a finding says of the profile it rests on."""
        return {"sessions": self.sessions, "stage": self.stage, "pool": self.pool, "compared": self.size}


class Window:
    """The latest ``size`` scores, ready to be ranked."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.alerted = 0
        self._order: deque[tuple[float, bool]] = deque()
        self._sorted = array("d")

    def __len__(self) -> int:
        return len(self._order)

    def add(self, score: float, alerted: bool) -> None:
        """Add a score; the oldest gives way."""
        if len(self._order) >= self.size:
            old, was_alerted = self._order.popleft()
            del self._sorted[bisect_left(self._sorted, old)]
            self.alerted -= was_alerted
        self._order.append((score, alerted))
        insort(self._sorted, score)
        self.alerted += alerted

    def at_least(self, score: float) -> int:
        """How many are as high or higher."""
        return len(self._sorted) - bisect_left(self._sorted, score)

    def median(self) -> float | None:
        """The upper median; None while empty."""
        return self._sorted[len(self._sorted) // 2] if self._sorted else None

    def state(self) -> list[Any]:
        """Scores in order of arrival, and the places of those that were alerted on."""
        scores = [score for score, _ in self._order]
        return [scores, [place for place, (_, alerted) in enumerate(self._order) if alerted]]

    @classmethod
    def restored(cls, size: int, state: Iterable[Any]) -> Window:
        """The window that gave ``state``."""
        scores, alerted = state
        places = set(alerted)
        window = cls(size)
        window._order = deque((score, place in places) for place, score in enumerate(scores))
        window._sorted = array("d", sorted(scores))
        window.alerted = len(places)
        return window


class _Agent:
    """An agent's own sessions. ``record`` is the highest score it had in the shadow, once warm."""

    def __init__(self, window: Window, sessions: int = 0, record: float = -math.inf) -> None:
        self.window = window
        self.sessions = sessions
        self.record = record

    @property
    def stage(self) -> str:
        return stage(self.sessions)

    def unseen(self, score: float) -> bool:
        """Whether the agent itself never scored as high."""
        return self.window.at_least(score) == 0 and (self.stage == FULL or score > self.record)


class _Held(NamedTuple):
    """A session that was alerted on, until ``due`` (event time)."""

    due: int
    who: Who
    score: float
    session_id: str | None


class Calibrator:
    """Judges scores of sessions against ``alpha``, per agent, role and tenant."""

    def __init__(
        self,
        alpha: float,
        agent_window: int = AGENT_WINDOW,
        pool_window: int = POOL_WINDOW,
        max_agents: int = MAX_AGENTS,
    ) -> None:
        self.alpha = alpha
        self.agent_window = agent_window
        self.pool_window = pool_window
        self.max_agents = max_agents
        self._agents: OrderedDict[tuple[str, str], _Agent] = OrderedDict()
        self._pools: OrderedDict[tuple[str, str], Window] = OrderedDict()
        self._held: dict[str, deque[_Held]] = {}

    def judge(self, who: Who, score: float) -> Standing:
        """Where ``score`` stands now, and whether it alerts. Nothing is learned from it."""
        agent = self._agents.get(who[:2])
        if agent is None:
            return Standing(1.0, 0, "agent", 0, SHADOW, None, False)
        pool, window = self._pool(who, agent)
        p_value = (1 + window.at_least(score)) / (len(window) + 1)
        # Borrowed scores know nothing of this agent's own variety: it must also be new to itself.
        alerts = agent.stage != SHADOW and p_value <= self.alpha and (pool == "agent" or agent.unseen(score))
        return Standing(
            p_value, len(window), pool, agent.sessions, agent.stage, agent.window.median(), alerts
        )

    def _pool(self, who: Who, agent: _Agent) -> tuple[str, Window]:
        """The narrowest window in which ``alpha`` can be claimed, else the largest."""
        candidates = [("agent", agent.window)]
        candidates += [
            (place[1].split()[0], self._pools[place]) for place in who.pools() if place in self._pools
        ]
        for name, window in candidates:
            if (len(window) + 1) * self.alpha >= 1:
                return name, window
        return max(candidates, key=lambda candidate: len(candidate[1]))

    def add(self, who: Who, score: float) -> None:
        """A session that nothing spoke against has ended with ``score``."""
        if self._count(who, score):
            for window in self._windows(who):
                window.add(score, False)

    def hold(self, who: Who, score: float, session_id: str | None, moment: int) -> None:
        """A session that was alerted on has ended: it waits a day for somebody to confirm it.

        Were it counted at once, the same attack would pass as usual the second time.
        """
        held = self._held.setdefault(who.tenant, deque(maxlen=MAX_HELD))
        held.append(_Held(moment + HOLD, who, score, session_id))

    def release(self, tenant: str, moment: int) -> None:
        """Count the held sessions of ``tenant`` that nobody has confirmed until ``moment``.

        They count only up to ``MAX_ALERTED`` times the budget: were none counted, the bound
        would sink with each; were all, a flood of attacks would lift it.
        """
        held = self._held.get(tenant)
        while held and held[0].due <= moment:
            _, who, score, _ = held.popleft()
            if self._count(who, score):
                for window in self._windows(who):
                    if window.alerted < MAX_ALERTED * self.alpha * len(window):
                        window.add(score, True)

    def confirm(self, tenant: str, agent_id: str, session_id: str) -> None:
        """An alert of this session was right: it never counts."""
        held = self._held.get(tenant, ())
        kept = [one for one in held if (one.who.agent_id, one.session_id) != (agent_id, session_id)]
        if len(kept) < len(held):
            self._held[tenant] = deque(kept, maxlen=MAX_HELD)

    def _count(self, who: Who, score: float) -> bool:
        """Count a session of the agent; whether its score is to be compared with from now on."""
        agent = self._agents.get(who[:2])
        if agent is None:
            agent = self._agents[who[:2]] = _Agent(Window(self.agent_window))
            if len(self._agents) > self.max_agents:
                self._agents.popitem(last=False)
        self._agents.move_to_end(who[:2])
        agent.sessions += 1
        if agent.sessions <= SHADOW_SESSIONS and agent.sessions > WARM_SESSIONS:
            agent.record = max(agent.record, score)
        return agent.sessions > SHADOW_SESSIONS

    def _windows(self, who: Who) -> list[Window]:
        return [self._agents[who[:2]].window, *(self._open(place) for place in who.pools())]

    def rebase(self, who: Who) -> None:
        """The agent was changed on purpose: it starts in the shadow again."""
        agent = self._agents.get(who[:2])
        if agent is not None:
            agent.sessions, agent.record = 0, -math.inf

    def _open(self, place: tuple[str, str]) -> Window:
        window = self._pools.get(place)
        if window is None:
            window = self._pools[place] = Window(self.pool_window)
            if len(self._pools) > self.max_agents:
                self._pools.popitem(last=False)
        self._pools.move_to_end(place)
        return window

    def profiles(self) -> list[tuple[str, str, int, str]]:
        """Tenant, agent, sessions and stage of each agent, least recently learned first."""
        return [(*key, agent.sessions, agent.stage) for key, agent in self._agents.items()]

    def state(self) -> dict[str, Any]:
        """Everything as plain data, in order."""
        return {
            "agents": [
                [*key, agent.sessions, None if agent.record == -math.inf else agent.record,
                 *agent.window.state()]
                for key, agent in self._agents.items()
            ],
            "held": [[tenant, [list(one) for one in held]] for tenant, held in self._held.items()],
            "pools": [[*place, *window.state()] for place, window in self._pools.items()],
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        self._agents = OrderedDict(
            (
                (tenant, agent_id),
                _Agent(
                    Window.restored(self.agent_window, window),
                    sessions,
                    -math.inf if record is None else record,
                ),
            )
            for tenant, agent_id, sessions, record, *window in state["agents"]
        )
        self._held = {
            tenant: deque((_Held(due, Who(*who), *rest) for due, who, *rest in held), maxlen=MAX_HELD)
            for tenant, held in state["held"]
        }
        self._pools = OrderedDict(
            ((tenant, name), Window.restored(self.pool_window, window))
            for tenant, name, *window in state["pools"]
        )
