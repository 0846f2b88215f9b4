"""An odd order of tools: the step of a session that its agent's habits expect least.

A session's score is its most surprising step in bits, under a variable-order Markov model of
the agent, its role and its tenant's fleet. It is judged at the step itself, before the call
runs, and learned only once the session is over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from detectors.base import Finding
from detectors.calibration import FULL, HOLD, MAX_AGENTS, Budget, Calibrator, Standing
from detectors.delayed import DELAY, Delayed, Ended
from detectors.learner import REBASING, CalibratedLearner, Event
from detectors.markov import MAX_CONTEXTS, ORDER, SEPARATOR, Model, context_keys, known, surprise
from detectors.sessions import MAX_LIVE, Live, SessionTable, Who
from detectors.steps import Calls
from detectors.wording import number, one_in, plain, short_key, times

START = "\x1e"
"""What precedes the first step."""

MAX_STEPS = 1_000
"""Steps of one session that are kept for learning; later ones are judged all the same."""

MAX_CONTEXTS_IN_ALL = 500_000
"""Contexts of all agents together; the agent least recently learned gives way."""

MOST_ALERTS = 3
"""So many sessions are alerted on for the same step until somebody gives a verdict."""

CONFIRMED, FALSE_ALARM = "confirmed", "false alarm"


class ToolSession(Live, array_like=True, kw_only=True):
    """A live session, its steps, and the calls that have not run yet."""

    steps: list[str] = msgspec.field(default_factory=list)
    recent: list[str] = msgspec.field(default_factory=list)
    calls: Calls = msgspec.field(default_factory=Calls)
    worst: float = 0.0
    alerted_for: str = ""


class Habit(msgspec.Struct, array_like=True, kw_only=True):
    """A step that an agent was alerted on for, first at ``since``, and what was said about it."""

    since: int
    alerts: int = 0
    sessions: list[str | None] = msgspec.field(default_factory=list)
    ruling: str = ""

    def speaks(self, session_id: str | None) -> bool:
        """Count one more session with this step; whether it is worth another alert."""
        self.alerts += 1
        self.sessions = [*self.sessions, session_id][-MOST_ALERTS:]
        return self.ruling == CONFIRMED or (not self.ruling and self.alerts <= MOST_ALERTS)

    def settled(self, moment: int) -> bool:
        """Whether the step may be learned: nobody confirmed it in a day and several alerts."""
        unconfirmed = not self.ruling and self.alerts > MOST_ALERTS and moment >= self.since + HOLD
        return unconfirmed or self.ruling == FALSE_ALARM


class ToolSequence(CalibratedLearner[ToolSession]):
    """Finds the session whose worst step is rarer than the budget allows."""

    name = "tool_sequence"
    title = "Unusual tool step"
    version = "1"
    state_version = 4
    columns = ("tool_name", "tool_call_id", "change_kind")
    tags = ("owasp-asi.2026.asi01", "owasp-asi.2026.asi02")

    def __init__(
        self,
        budget: Budget | None = None,
        max_live: int = MAX_LIVE,
        max_agents: int = MAX_AGENTS,
        max_contexts: int = MAX_CONTEXTS,
        max_contexts_in_all: int = MAX_CONTEXTS_IN_ALL,
    ) -> None:
        self.table = SessionTable(ToolSession, max_live)
        self.calibrator = Calibrator((budget or Budget()).alpha(self.name), max_agents=max_agents)
        self.max_agents = max_agents
        self.max_contexts = max_contexts
        self.max_contexts_in_all = max_contexts_in_all
        self.delayed: Delayed[list[str]] = Delayed()
        self._models: OrderedDict[tuple[str, str], Model] = OrderedDict()
        self._contexts = 0
        self._habits: OrderedDict[tuple[str, str, str, bool], Habit] = OrderedDict()

    def seen(self, live: ToolSession, event: Event, values: tuple[Any, ...]) -> Finding | None:
        """Judge the step that this event is, if it is one."""
        tool_name, call_id, _ = values
        if tool_name is None or not live.calls.begins(event.kind, call_id):
            return None
        tool = short_key(tool_name.replace(SEPARATOR, " "))
        keys = context_keys(live.recent or [START])
        bits = self._surprise(live.who, keys, tool)
        live.recent = [*(live.recent or [START]), tool][-ORDER:]
        if len(live.steps) < MAX_STEPS:
            live.steps.append(tool)
        if bits <= live.worst:
            return None
        live.worst = bits
        if live.alerted_for and self.listen is None:
            return None
        standing = self.calibrator.judge(live.who, bits)
        self.tell(live, event.event_id, event.at, bits, standing)
        if live.alerted_for or not standing.alerts:
            return None
        live.alerted_for = keys[1] + SEPARATOR + tool
        habit = self._habit(live)
        live.tainted = live.tainted or habit.ruling == CONFIRMED
        if not habit.speaks(live.session_id):
            return None
        return self._found(live, event, keys, tool, bits, standing)

    def ended(self, live: ToolSession, row: int) -> None:
        """Steps wait to be learned, unless a rule, a verdict or this detector spoke against them."""
        healthy = bool(live.steps) and self.counted(live, live.worst, bool(live.alerted_for))
        habit = self._habit(live) if live.alerted_for and not live.tainted else None
        if healthy or (habit is not None and habit.settled(live.clock)):
            cleared = habit is not None and habit.ruling == FALSE_ALARM
            alerted = habit is not None
            over = Ended(
                live.clock + DELAY, live.who, live.session_id, live.worst, alerted, live.steps, cleared
            )
            self.delayed.put(over, live.replayed)
        for over in self.delayed.due(live.who.tenant, live.replayed, live.clock):
            self._learn(over.who, over.payload)

    def declared(self, who: Who, event: Event, values: tuple[Any, ...]) -> None:
        """After a declared change other steps are to be expected: they are learned first."""
        if values[2] in REBASING:
            self.calibrator.rebase(who)

    def verdict(self, tenant: str, agent_id: str, session_id: str, confirmed: bool) -> None:
        """A confirmed step never becomes a habit; one that was a false alarm is one at once."""
        super().verdict(tenant, agent_id, session_id, confirmed)
        if confirmed:
            self.delayed.drop(tenant, agent_id, session_id)
        else:
            self.delayed.clear(tenant, agent_id, session_id)
        of_agent = [
            (place, habit) for place, habit in self._habits.items() if place[:2] == (tenant, agent_id)
        ]
        ruled = {place[2] for place, habit in of_agent if session_id in habit.sessions}
        for place, habit in of_agent:
            if place[2] in ruled:
                habit.ruling = CONFIRMED if confirmed else FALSE_ALARM
                for other in habit.sessions:
                    if other is not None and confirmed:
                        super().verdict(tenant, agent_id, other, confirmed)

    def _surprise(self, who: Who, keys: list[str], tool: str) -> float:
        models = self._models
        scopes = [models[place] for place in _places(who) if place in models]
        return surprise(scopes, keys, tool) if scopes else 0.0

    def _learn(self, who: Who, steps: list[str]) -> None:
        for place in _places(who):
            model = self._models.get(place)
            if model is None:
                model = self._models[place] = Model(self.max_contexts)
            self._models.move_to_end(place)
            self._contexts -= len(model.contexts)
            before = [START]
            for tool in steps:
                model.learn(context_keys(before), tool)
                before = [*before, tool][-ORDER:]
            self._contexts += len(model.contexts)
        while len(self._models) > self.max_agents or self._contexts > self.max_contexts_in_all:
            self._contexts -= len(self._models.popitem(last=False)[1].contexts)

    def _habit(self, live: ToolSession) -> Habit:
        """What became of the step that ``live`` was alerted on for.

        Alerts on replayed sessions are counted apart, or they would use up those on live ones;
        a verdict is about the step, wherever it was seen.
        """
        step = (live.who.tenant, live.who.agent_id, live.alerted_for)
        place = (*step, live.replayed)
        habit = self._habits.get(place)
        if habit is None:
            twin = self._habits.get((*step, not live.replayed))
            habit = Habit(since=live.clock, ruling=twin.ruling if twin is not None else "")
            self._habits[place] = habit
            if len(self._habits) > self.max_agents:
                self._habits.popitem(last=False)
        self._habits.move_to_end(place)
        return habit

    def _found(
        self, live: ToolSession, event: Event, keys: list[str], tool: str, bits: float, standing: Standing
    ) -> Finding:
        agent = self._models.get(_places(live.who)[-1]) or Model()
        seen, total, shares = known(agent, keys[1], tool)
        before = "" if keys[1] == START else plain(keys[1])
        where = f"after {before}" if before else "as the first step"
        contexts = f"{total:,} such contexts" if total else "no such context before"
        usual = "none yet" if standing.usual is None else f"{number(standing.usual)} bits"
        return self.finding(
            live,
            row=event.row,
            level="medium" if standing.stage == FULL else "low",
            reason=(
                f"{plain(tool)} {where}: seen {times(seen)} in {contexts}; {number(bits)} bits, "
                f"this agent's usual worst step is {usual}; {one_in(standing.p_value)} sessions "
                f"of this {standing.pool}"
            ),
            evidence={
                "observed": {"next_tool": plain(tool), "bits": round(bits, 2), "seen": seen},
                "expected": {
                    "next_tool": {plain(name): share for name, share in shares.items()},
                    "bits": None if standing.usual is None else round(standing.usual, 2),
                    "seen": total,
                },
                "context": [plain(name) for name in keys[-1].split(SEPARATOR) if name != START],
                "p_value": standing.p_value,
                "bits": round(bits, 3),
                "profile": standing.profile(),
            },
            event_ids=(event.event_id,),
            event_count=1,
            session_id=live.session_id,
            parts=(live.session_id, live.first_event),
        )

    def state(self) -> dict[str, Any]:
        """Live sessions, models, habits and calibration as plain data."""
        return {
            "version": self.state_version,
            "table": self.table.state(),
            "calibrator": self.calibrator.state(),
            "delayed": self.delayed.state(),
            "models": [[*place, model.state()] for place, model in self._models.items()],
            "habits": [[*place, msgspec.to_builtins(habit)] for place, habit in self._habits.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``. Raises ValueError where the version is not known."""
        self.checked(state)
        self.table.restore(state["table"])
        self.calibrator.restore(state["calibrator"])
        self.delayed.restore(state["delayed"], list[str])
        self._models = OrderedDict(
            ((tenant, name), Model.restored(model, self.max_contexts))
            for tenant, name, model in state["models"]
        )
        self._contexts = sum(len(model.contexts) for model in self._models.values())
        self._habits = OrderedDict(
            ((tenant, agent, step, replayed), msgspec.convert(habit, Habit))
            for tenant, agent, step, replayed, habit in state["habits"]
        )


def _places(who: Who) -> list[tuple[str, str]]:
    """Where an agent's models are kept, from the widest scope to the agent's own."""
    return [*reversed(who.pools()), (who.tenant, f"agent {who.agent_id}")]
