"""How well repeated policy blocks are found, on simulated refusals whose truth is known.

An agent works in sessions of twenty minutes with eight calls, one an hour, round the clock. Its
refusals are Gamma-Poisson: some agents have more than others (log-normal around six a day), and so
have some days (Gamma of shape 20); between 8 and 18 h there are three times as many an hour as at
night. Sixty days are learned from; the last thirty of them say how often it alerts for nothing, and
at one such alert in thirty days of an agent four attacks are tried on every agent:

- a burst, some six refusals within an hour in one session;
- a day of 24 hours with three times the agent's own rate;
- a slow probe, one refusal an hour for a day, beside the usual ones;
- a slow boil, a rate that grows by a fiftieth every day for four weeks.

Beside it stands what most sites have: a fixed count in thirty minutes, the lowest with no more
false alerts. The sizes were chosen so that it finds about what it found in earlier work (.60, .12,
.06, .30). Who knows each agent's true rate and watches days alone finds .82 of the tripled days.
Figures of more tries: docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import msgspec
import numpy as np
import pytest

from detectors.calibration import Budget
from detectors.policy_blocks import PolicyBlocks
from monitor.moments import microseconds
from tests.builders import START, event
from tests.detectors.streams import DAY, HOUR, MINUTE, in_order, run

AGENTS, DAYS, COUNTED, TRIES = 20, 60, 30, 3
SESSION = 20 * MINUTE
SHAPE = 20.0
CALLS = 8
FALSE_ALERTS = 1 / 30
"""Of an agent, a day."""

HALF_HOUR = 30 * MINUTE

Refusals = list[float]
"""Seconds after the beginning."""


class Agent:
    """An imaginary agent; ``rate`` is its refusals a day."""

    def __init__(self, number: int) -> None:
        self.name = f"agent-{number:02}"
        self.rng = np.random.default_rng(number)
        self.rate = 6 * self.rng.lognormal(0, 0.5)

    def lives(self, first: float, days: int, growth: Callable[[float], float] = lambda day: 1.0) -> Refusals:
        """Refusals of so many days, the rate times ``growth`` of the day."""
        told = []
        for day in range(days):
            mean = self.rate * growth(day) * self.rng.gamma(SHAPE, 1 / SHAPE)
            for hour in range(24):
                share = (3 if 8 <= (9 + hour) % 24 < 18 else 1) / 44
                count = self.rng.poisson(mean * share)
                start = first + day * DAY + hour * HOUR
                told += sorted(start + self.rng.uniform(1, SESSION, count))
        return told


def events(agent: Agent, refusals: Refusals, first: float, days: int) -> Iterator[object]:
    """All that the agent does in the days from ``first``, refusals in the session at hand."""
    at = 0
    for number in range(days * 24):
        start = first + number * HOUR
        name = f"{agent.name}-{start:.0f}"
        told = [(start, "task.created", {}), (start + SESSION, "task.completed", {})]
        told += [(start + call * SESSION / CALLS, "tool.executed", {}) for call in range(CALLS)]
        while at < len(refusals) and refusals[at] < start + HOUR:
            call = {"policy_decision": "deny", "outcome": "blocked", "tool_call_id": f"{name}-{at}"}
            told.append((refusals[at], "policy.checked", call))
            told[1] = (max(told[1][0], refusals[at]), "task.completed", {})
            at += 1
        for place, (moment, kind, columns) in enumerate(sorted(told, key=lambda one: one[0])):
            yield event(
                kind, moment, agent_id=agent.name, session_id=name, event_id=f"{name}-{place}", **columns
            )


Attack = Callable[[Agent, float], tuple[Refusals, int]]
"""Refusals from a moment on, and for how many days."""


def burst(agent: Agent, first: float) -> tuple[Refusals, int]:
    start = first + agent.rng.integers(24) * HOUR
    refused = start + agent.rng.uniform(60, HOUR - 60, agent.rng.poisson(6))
    return sorted([*agent.lives(first, 1), *refused]), 1


def tripled(agent: Agent, first: float) -> tuple[Refusals, int]:
    return agent.lives(first, 1, lambda day: 3.0), 1


def slow_probe(agent: Agent, first: float) -> tuple[Refusals, int]:
    hourly = [first + hour * HOUR + agent.rng.uniform(1, SESSION) for hour in range(24)]
    return sorted(agent.lives(first, 1) + hourly), 1


def slow_boil(agent: Agent, first: float) -> tuple[Refusals, int]:
    return agent.lives(first, 28, lambda day: 1.02**day), 28


@cache
def learned() -> tuple[tuple[Agent, ...], bytes, int, int]:
    """Agents, what the detector knows of them, its false alerts, and those of a fixed count's limit."""
    agents = tuple(Agent(number) for number in range(AGENTS))
    lives = {agent: agent.lives(0, DAYS) for agent in agents}
    detector = PolicyBlocks(Budget(1_000 * FALSE_ALERTS / 24, {"policy_blocks": 1.0}))
    told = in_order(*(events(agent, refusals, 0, DAYS) for agent, refusals in lives.items()))
    found = run(detector, told)
    since = microseconds(START) + (DAYS - COUNTED) * DAY * 1e6
    counted = [one for one in found if one.timestamp >= since]
    limit = next(
        limit
        for limit in range(2, 100)
        if sum(fixed(refusals, limit, 0, DAYS) for refusals in lives.values()) <= FALSE_ALERTS * DAYS * AGENTS
    )
    return agents, msgspec.msgpack.encode(detector.state()), len(counted), limit


def fixed(refusals: Refusals, limit: int, first: float, days: int) -> int:
    """In how many half hours the count is reached."""
    counts = np.bincount([int((at - first) // HALF_HOUR) for at in refusals], minlength=days * 48)
    return int((counts >= limit).sum())


def share_found(attack: Attack) -> tuple[float, float]:
    """In what share of tries the detector alerts, and the fixed count."""
    agents, state, _, limit = learned()
    first, hits, by_count = DAYS * DAY, 0, 0
    for agent in agents:
        for _ in range(TRIES):
            detector = PolicyBlocks(Budget(1_000 * FALSE_ALERTS / 24, {"policy_blocks": 1.0}))
            detector.restore(msgspec.msgpack.decode(state))
            refusals, days = attack(agent, first)
            hits += bool(run(detector, in_order(events(agent, refusals, first, days))))
            by_count += fixed(refusals, limit, first, days) > 0
    return hits / AGENTS / TRIES, by_count / AGENTS / TRIES


def test_false_alerts_stay_within_one_in_thirty_days_of_an_agent() -> None:
    _, _, false_alerts, limit = learned()
    print(f"\nfalse alerts: {false_alerts} in {COUNTED * AGENTS} agent-days; a fixed count needs {limit}")
    assert false_alerts <= 1.5 * FALSE_ALERTS * COUNTED * AGENTS


@pytest.mark.parametrize(
    ("attack", "floor"), [(burst, 0.83), (tripled, 0.73), (slow_probe, 0.65), (slow_boil, 0.89)]
)
def test_attacks_are_found(attack: Attack, floor: float) -> None:
    share, by_count = share_found(attack)
    print(f"\n{attack.__name__}: {share:.2f} of {AGENTS * TRIES}, a fixed count {by_count:.2f}")
    assert share >= floor
