"""One session of a simulated agent, as the events that an instrumented agent sends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from monitor.simulation.roles import Role, Tool
from monitor.simulation.values import Draw, World, slug

MOST_CALLS = 12
"""A session ends after this many tool calls, whatever the grammar says."""

PRICE_IN, PRICE_OUT = 1.1e-6, 5.5e-6
"""US dollars for one token."""


@dataclass(frozen=True)
class Habit:
    """How an agent differs from its role: factors, and the share of calls it repeats."""

    output: float = 1.0
    latency: float = 1.0
    repeats: float = 0.0


@dataclass(frozen=True)
class Agent:
    """One agent: its identity and the provenance it reports."""

    agent_id: str
    role: Role
    world: World
    version: str
    model: tuple[str, str, str]
    prompt_hash: str
    prompt_version: str
    registry_version: str
    policy_version: str
    habit: Habit = Habit()

    def columns(self) -> dict[str, Any]:
        """What every event of this agent carries."""
        return {
            "agent_id": self.agent_id,
            "agent_version": self.version,
            "business_role": self.role.name,
            "environment": "production",
            "source": "simulated-fleet/1",
        }


@dataclass
class Step:
    """Events that happen together, ``delay`` seconds after the step before.

    ``telling`` is the index of the event with which a story's misbehaviour begins.
    """

    delay: float
    events: list[dict[str, Any]]
    telling: int | None = None


@dataclass
class Session:
    """One session: ``pause`` seconds after the one before, then its steps.

    ``repeats`` says whether the agent may do the like again later.
    """

    session_id: str
    pause: float
    steps: list[Step] = field(default_factory=list)
    story: str | None = None
    repeats: bool = True

    def seconds(self) -> float:
        """How long it runs, its pause left out."""
        return sum(step.delay for step in self.steps)

    def events(self) -> list[dict[str, Any]]:
        """All its events, in order."""
        return [event for step in self.steps for event in step.events]


class Recorder:
    """Writes down what an agent does in one session."""

    def __init__(self, agent: Agent, rng: Random, pause: float = 0.0, story: str | None = None) -> None:
        self.agent = agent
        self.role = agent.role
        self.rng = rng
        self.draw = Draw(agent.world, rng)
        self.session = Session(f"s-{rng.getrandbits(48):012x}", pause, story=story, repeats=story is None)
        user = self.draw.value("person_mail") if self.role.initiator == "user" else "scheduler"
        self._common = {
            "task_id": f"t-{rng.getrandbits(40):010x}",
            "correlation_id": f"{rng.getrandbits(128):032x}",
            "initiator_id": user,
            "initiator_type": self.role.initiator,
        }

    def event(self, event_type: str, **columns: Any) -> dict[str, Any]:
        """One event of this session; time and id are set when it is sent."""
        known = {"event_type": event_type, **self._common, **columns}
        return {name: value for name, value in known.items() if value is not None}

    def step(self, delay: float, *events: dict[str, Any], telling: int | None = None) -> None:
        """Add events; with a delay of 0 they are sent together with what came before."""
        steps = self.session.steps
        if delay or not steps:
            steps.append(Step(round(delay, 4), []))
        if telling is not None:
            steps[-1].telling = len(steps[-1].events) + telling
        steps[-1].events.extend(events)

    def created(self) -> None:
        """The task begins."""
        goal = self.draw.fill(self.rng.choice(self.role.goals))
        registry = self.agent.registry_version
        self.step(0.0, self.event("task.created", task_goal=goal, tool_registry_version=registry))

    def model(self, weight: float = 1.0) -> None:
        """One model call; ``weight`` scales what it writes."""
        role, habit = self.role, self.agent.habit
        tokens_in = round(role.input_tokens * self.rng.lognormvariate(0, 0.25))
        tokens_out = max(
            4, round(role.output_tokens * habit.output * weight * self.rng.lognormvariate(0, 0.3))
        )
        latency = role.model_latency * habit.latency * self.rng.lognormvariate(0, 0.25)
        provider, model_id, version = self.agent.model
        self.step(
            latency / 1_000,
            self.event(
                "model.invoked",
                model_provider=provider,
                model_id=model_id,
                model_version=version,
                prompt_hash=self.agent.prompt_hash,
                prompt_template_version=self.agent.prompt_version,
                tool_registry_version=self.agent.registry_version,
                policy_version=self.agent.policy_version,
                input_tokens=tokens_in,
                output_tokens=tokens_out,
                cost_usd=round(tokens_in * PRICE_IN + tokens_out * PRICE_OUT, 6),
                latency_ms=round(latency, 1),
                outcome="success",
            ),
        )

    def call_columns(
        self, tool: Tool, args: Mapping[str, Any] | None = None, **columns: Any
    ) -> dict[str, Any]:
        """The columns that all events of one call share; values filled in."""
        filled = self.draw.fill(dict(tool.args if args is None else args))
        common: dict[str, Any] = {
            "tool_name": tool.name,
            "tool_call_id": f"call_{self.rng.getrandbits(48):012x}",
            "tool_kind": tool.kind,
            "tool_server": tool.server,
            "tool_args": json.dumps(filled),
            "target": self.draw.fill(tool.target),
            "effect": tool.effect,
            "data_classification": tool.classification,
        }
        if tool.moves_money:
            common["amount"] = filled["amount"]
            common["attributes"] = {"currency": "EUR"}
        return {**common, **columns}

    def decided(self, columns: Mapping[str, Any], decision: str, **more: Any) -> dict[str, Any]:
        """What the guardrail decided about a call."""
        return self.event(
            "policy.checked",
            **columns,
            policy_id=self.role.agent + "-guardrail",
            policy_version=self.agent.policy_version,
            policy_decision=decision,
            decision_source="policy engine",
            risk_tier="low" if columns["effect"] == "read" else "medium",
            **more,
        )

    def executed(
        self,
        tool: Tool,
        columns: Mapping[str, Any],
        delay: float | None = None,
        telling: int | None = None,
        **more: Any,
    ) -> None:
        """The call ran."""
        latency = tool.latency * self.rng.lognormvariate(0, 0.35)
        result = self.draw.fill(tool.result)
        told: dict[str, Any] = {
            "outcome": "success",
            "tool_result": result if isinstance(result, str) else json.dumps(result),
            "latency_ms": round(latency, 1),
            "data_accessed": list(tool.data),
            **more,
        }
        self.step(
            latency / 1_000 if delay is None else delay,
            self.event("tool.executed", **columns, **told),
            telling=telling,
        )

    def call(self, tool: Tool, args: Mapping[str, Any] | None = None, **more: Any) -> None:
        """A call from request to result. Reads are approved by configuration, the rest by policy."""
        columns = self.call_columns(tool, args)
        asked = [self.event("tool.requested", **columns)]
        if tool.review and self.rng.random() < tool.review:
            columns["approval_id"] = f"a-{self.rng.getrandbits(32):08x}"
            self.step(
                0.0, *asked, self.decided(columns, "escalate", policy_reason="a person must look at this")
            )
            self._reviewed(columns)
        else:
            if tool.effect != "read":
                asked.append(self.decided(columns, "allow"))
            source = "config" if tool.effect == "read" else "policy engine"
            self.step(0.0, *asked, self.event("tool.approved", **columns, decision_source=source))
        self.executed(tool, columns, **more)

    def _reviewed(self, columns: Mapping[str, Any]) -> None:
        people = [f"{slug(name)}@{self.draw.world.domain}" for name in self.draw.world.people]
        reviewer = self.rng.choice([person for person in people if person != self._common["initiator_id"]])
        self.step(
            self.rng.uniform(25, 60),
            self.event(
                "human.reviewed",
                **columns,
                reviewer_id=reviewer,
                review_decision="approve",
                decision_source="user",
            ),
            self.event("tool.approved", **columns, decision_source="user"),
        )

    def failed_call(self, tool: Tool) -> None:
        """A call that ran into an error."""
        columns = self.call_columns(tool)
        self.step(
            0.0,
            self.event("tool.requested", **columns),
            self.event("tool.approved", **columns, decision_source="config"),
        )
        fault, words = self.rng.choice(
            (("TimeoutError", "no answer in time"), ("HTTPError", "503 from server"))
        )
        self.executed(
            tool, columns, outcome="failure", error_type=fault, error_message=words, tool_result=None
        )

    def refused(
        self,
        tool: Tool,
        args: Mapping[str, Any] | None = None,
        reason: str | None = None,
        *,
        telling: bool = False,
    ) -> dict[str, Any]:
        """A call that the guardrail blocked; its columns."""
        columns = self.call_columns(tool, args)
        self.step(
            0.0,
            self.event("tool.requested", **columns),
            self.decided(columns, "deny", policy_reason=reason or tool.refusal, outcome="blocked"),
            telling=1 if telling else None,
        )
        return columns

    def completed(self, outcome: str = "success") -> Session:
        """The task ends; the finished session."""
        self.step(0.0, self.event("task.completed", outcome=outcome))
        return self.session


def healthy_session(agent: Agent, rng: Random, pause: float = 0.0) -> Session:
    """An ordinary session: a walk through the role's grammar, now and then blocked or failing."""
    recorder = Recorder(agent, rng, pause)
    recorder.created()
    role = agent.role
    blocks = 0 if rng.random() >= role.denied else (2 if rng.random() < 0.08 else 1)
    here, calls = "start", 0
    while True:
        recorder.model()
        if here == "start" or rng.random() >= agent.habit.repeats:
            steps = role.grammar[here]
            here = rng.choices(list(steps), list(steps.values()))[0]
        if here == "end" or calls == MOST_CALLS:
            return recorder.completed()
        tool = role.by_name[here]
        calls += 1
        if blocks and (tool.effect != "read" or rng.random() < 0.1):
            blocks -= 1
            recorder.refused(tool)
            if not blocks:
                recorder.model()
                return recorder.completed()
        elif rng.random() < role.failing:
            recorder.failed_call(tool)
        else:
            recorder.call(tool)
