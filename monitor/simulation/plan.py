"""What happens in one run of the demo: who does what, when, with which values. All from a seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from monitor.simulation import stories
from monitor.simulation.roles import ROLES, Role
from monitor.simulation.sessions import Agent, Habit, Session, healthy_session
from monitor.simulation.values import World

LIVE_SECONDS = 150.0
"""An agent has work for this long before it starts again at a calmer pace."""

PAUSE = (3.0, 9.0)
FAST_PAUSE = (0.08, 0.25)
CHATTY_PAUSE = (0.2, 0.6)


@dataclass
class Member:
    """One agent of the fleet: its past and its live sessions.

    ``history`` is the number of past sessions. ``before`` is the agent as it was until
    the change it declared at the share ``changed_at`` of its past. ``pause`` is the range
    of seconds between two sessions of a working burst.
    """

    agent: Agent
    history: int
    pause: tuple[float, float]
    story: str | None = None
    part: str = "steady"
    before: Agent | None = None
    changed_at: float = 0.0
    sessions: list[Session] = field(default_factory=list)

    @property
    def agent_id(self) -> str:
        """The agent's identity."""
        return self.agent.agent_id


@dataclass(frozen=True)
class Plan:
    """The fleet of one seed."""

    seed: int
    world: World
    members: tuple[Member, ...]

    def member(self, agent_id: str) -> Member | None:
        """The member with this identity."""
        return next((member for member in self.members if member.agent_id == agent_id), None)

    def teller(self, story: str) -> Member:
        """The agent that a story is about."""
        return next(member for member in self.members if member.story == story)

    @property
    def healthy(self) -> tuple[Member, ...]:
        """The agents that do nothing wrong."""
        return tuple(member for member in self.members if member.story is None)


def make_plan(seed: int) -> Plan:
    """The plan of ``seed``; the same seed gives the same plan."""
    rng = Random(seed)  # noqa: S311 - a simulation
    world = World(rng)
    slow = rng.sample([role for role in ROLES if not role.fast], 8)
    fast = rng.sample([role for role in ROLES if role.fast], 2)
    cast: list[tuple[Role, str | None, str]] = [
        (slow[0], stories.BLOCKS, "story"),
        (slow[1], stories.SECRET, "story"),
        (fast[0], stories.MODEL, "story"),
        (slow[2], stories.DENIED, "story"),
        (fast[1], None, "chatty"),
        (slow[3], None, "new"),
        (slow[4], None, "declared"),
        *((role, None, "steady") for role in slow[5:]),
    ]
    members = [
        _member(role, story, part, world, city, Random(rng.getrandbits(64)))  # noqa: S311
        for (role, story, part), city in zip(cast, world.cities, strict=False)
    ]
    rng.shuffle(members)
    return Plan(seed, world, tuple(members))


def _member(role: Role, story: str | None, part: str, world: World, city: str, rng: Random) -> Member:
    agent = _agent(role, world, city, rng)
    pause = CHATTY_PAUSE if part == "chatty" else FAST_PAUSE if role.fast else PAUSE
    past = 0 if part == "new" else rng.randint(290, 320) if part == "chatty" else rng.randint(215, 245)
    member = Member(agent, past, pause, story, part)
    if part == "declared":
        member.before = agent
        member.changed_at = rng.uniform(0.45, 0.6)
        member.agent = dataclasses.replace(
            agent,
            model=(agent.model[0], agent.model[1], agent.model[2] + ".1"),
            habit=Habit(rng.uniform(1.6, 2.0), rng.uniform(1.2, 1.4), rng.uniform(0.2, 0.3)),
        )
    member.sessions = list(_live(member, rng))
    return member


def _agent(role: Role, world: World, city: str, rng: Random) -> Agent:
    return Agent(
        agent_id=f"{role.agent}-{city}",
        role=role,
        world=world,
        version=f"{rng.randint(1, 4)}.{rng.randint(0, 12)}.{rng.randint(0, 9)}",
        model=role.model,
        prompt_hash=f"{rng.getrandbits(64):016x}",
        prompt_version=f"{role.agent}@{rng.randint(3, 40)}",
        registry_version=f"tools@{rng.randint(2, 30)}",
        policy_version=f"policy@{rng.randint(5, 60)}",
    )


TELLERS: dict[str, Callable[[Agent, Random, float], Session]] = {
    stories.BLOCKS: stories.policy_blocks,
    stories.SECRET: stories.secret_exfiltration,
    stories.DENIED: stories.executed_after_denial,
}

STARTS = {
    stories.BLOCKS: (6.0, 14.0),
    stories.SECRET: (14.0, 26.0),
    stories.MODEL: (3.0, 7.0),
    stories.DENIED: (9.0, 20.0),
}
"""When a story begins, seconds after the fleet's start; the agent finishes its session first."""


def _live(member: Member, rng: Random) -> Iterable[Session]:
    agent, story = member.agent, member.story
    due = rng.uniform(*STARTS[story]) if story else LIVE_SECONDS
    clock = 0.0
    told = changed = False
    while clock < LIVE_SECONDS:
        pause = rng.uniform(*member.pause) * (0.4 if not clock else 1.0)
        if not told and clock + pause >= due:
            told = True
            if story == stories.MODEL:
                agent = stories.changed_model(agent, rng)
            elif story:
                session = TELLERS[story](agent, rng, pause)
                clock += pause + session.seconds()
                yield session
                continue
        session = healthy_session(agent, rng, pause)
        if story == stories.MODEL:
            session.repeats = told
            session.story = story if told else None
            session.steps[0].telling = 0 if told and not changed else None
            changed = told
        clock += pause + session.seconds()
        yield session
