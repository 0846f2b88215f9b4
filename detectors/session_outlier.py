"""A session unlike any other: the unknown unknown, with a small share of the budget.

A session is a vector of eleven figures (`FIGURES`), scored by an isolation forest of its tenant that is
fitted anew on schedule, outside; until there is one, nothing is said. A session is looked at whenever its
calls have doubled, and at its end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from detectors.base import Batch, Finding
from detectors.calibration import FULL, MAX_AGENTS, Budget, Calibrator, Standing
from detectors.forest import Floats, Forest, fit
from detectors.learner import REBASING, CalibratedLearner, Event
from detectors.sessions import MAX_LIVE, Live, SessionTable, Who
from detectors.wording import number, one_in, short_key

FIGURES = (
    *("tool calls requested", "tool calls run", "different tools", "model calls", "failures", "refusals"),
    *("approvals", "tokens of output", "tokens of input", "characters of arguments"),
    "characters of results",
)
"""What a vector holds, each as log(1 + figure)."""

REQUESTED, RUN, TOOLS, MODEL_CALLS, FAILURES, REFUSALS, APPROVALS = range(7)
OUTPUT, INPUT, ARGUMENTS, RESULTS = range(7, 11)

FAILED = frozenset({"failure", "timeout"})
APPROVED = frozenset({"tool.approved", "human.reviewed"})

FIRST_LOOK = 4
"""Calls at which a session is looked at first; then at each doubling."""

MAX_TOOLS = 64
"""Different tools that are counted."""

MAX_TENANTS = 50
"""Tenants with a forest; the one longest without a new one gives way."""

TOLD = 3
"""Figures that a finding names, the farthest from usual first."""


class OutlierSession(Live, array_like=True, kw_only=True):
    """A live session's figures so far; ``names`` are the tools it has used, ``latest`` its last event."""

    figures: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(FIGURES))
    names: list[str] = msgspec.field(default_factory=list)
    look: int = FIRST_LOOK
    latest: str = ""
    latest_at: int = 0
    worst: float = 0.0
    alerted: bool = False


class Look(NamedTuple):
    """A session as it was when it was looked at; ``over`` says whether that was at its end."""

    live: OutlierSession
    row: int
    event_id: str
    at: int
    figures: tuple[float, ...]
    over: bool


class Model(NamedTuple):
    """A tenant's forest, and of each figure what is usual (its median) and the usual distance from it.

    ``sessions`` is how many it was fitted on.
    """

    forest: Forest
    usual: list[float]
    spread: list[float]
    sessions: int

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {**self._asdict(), "forest": self.forest.state()}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Model:
        """The model that gave ``state``. Raises ValueError where it does not hold together."""
        usual, spread = list(map(float, state["usual"])), list(map(float, state["spread"]))
        if len(usual) != len(FIGURES) or len(spread) != len(FIGURES):
            raise ValueError(f"a model has {len(usual)} figures, not {len(FIGURES)}")
        return cls(Forest.restored(state["forest"]), usual, spread, int(state["sessions"]))


def fitted(figures: Floats, seed: int = 0) -> Model:
    """The model of sessions, one row of figures each (n, 11)."""
    vectors = np.log1p(figures)
    usual = np.median(vectors, axis=0)
    spread = np.maximum(np.median(np.abs(vectors - usual), axis=0) * 1.4826, 0.1)
    return Model(fit(vectors, seed), usual.tolist(), spread.tolist(), len(figures))


class SessionOutlier(CalibratedLearner[OutlierSession]):
    """Finds the session whose figures are cut off sooner than the budget allows."""

    name = "session_outlier"
    title = "Session unlike others"
    version = "1"
    state_version = 2
    columns = (
        *("tool_name", "outcome", "policy_decision", "output_tokens", "input_tokens"),
        *("tool_args", "tool_result", "change_kind"),
    )
    tags = ("owasp-asi.2026.asi10",)
    collect: Callable[[str, Sequence[float]], None] | None = None
    """Is told the tenant and the figures of every healthy session that is over."""

    def __init__(
        self, budget: Budget | None = None, max_live: int = MAX_LIVE, max_agents: int = MAX_AGENTS
    ) -> None:
        self.table = SessionTable(OutlierSession, max_live)
        self.calibrator = Calibrator((budget or Budget()).alpha(self.name), max_agents=max_agents)
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._looks: list[Look | Who] = []

    def use(self, tenant: str, model: Mapping[str, Any]) -> None:
        """Judge the tenant's sessions by this model from now on. Raises ValueError for one that is none."""
        self._models[tenant] = Model.restored(model)
        self._models.move_to_end(tenant)
        if len(self._models) > MAX_TENANTS:
            self._models.popitem(last=False)

    def process(self, batch: Batch) -> list[Finding]:
        """Count row by row; then score all looks at once, and judge them in their order."""
        super().process(batch)
        return self._judged()

    def tick(self, now: int) -> list[Finding]:
        """End the sessions that have been silent for too long."""
        super().tick(now)
        return self._judged()

    def seen(self, live: OutlierSession, event: Event, values: tuple[Any, ...]) -> None:
        """Count the event; look at the session where its calls have doubled."""
        tool, outcome, decision, output_tokens, input_tokens, arguments, result, _ = values
        figures = live.figures
        if event.kind == "tool.requested":
            figures[REQUESTED] += 1
            figures[ARGUMENTS] += len(arguments or "")
        elif event.kind == "tool.executed":
            figures[RUN] += 1
            figures[RESULTS] += len(result or "")
        elif event.kind == "model.invoked":
            figures[MODEL_CALLS] += 1
            figures[OUTPUT] += max(0, output_tokens or 0)
            figures[INPUT] += max(0, input_tokens or 0)
        elif event.kind in APPROVED:
            figures[APPROVALS] += 1
        if outcome in FAILED:
            figures[FAILURES] += 1
        if outcome == "blocked" or decision == "deny":
            figures[REFUSALS] += 1
        if tool is not None and len(live.names) < MAX_TOOLS and (name := short_key(tool)) not in live.names:
            live.names.append(name)
            figures[TOOLS] += 1
        live.latest, live.latest_at = event.event_id, event.at
        if max(figures[REQUESTED], figures[RUN]) >= live.look:
            live.look *= 2
            self._looks.append(_look(live, event.row, over=False))

    def ended(self, live: OutlierSession, row: int) -> None:
        """Look at the whole session; once it is judged, later ones are compared with it."""
        if live.latest:
            self._looks.append(_look(live, row, over=True))

    def _judged(self) -> list[Finding]:
        """Judge what has been looked at since the last time; a ``Who`` among it was changed on purpose."""
        queued, self._looks = self._looks, []
        scores = iter(self._scores([one for one in queued if isinstance(one, Look)]))
        found = []
        for look in queued:
            if isinstance(look, Who):
                self.calibrator.rebase(look)
                continue
            live, score = look.live, next(scores)
            if look.over and self.collect is not None and not live.tainted:
                self.collect(live.who.tenant, look.figures)
            if score is None:
                continue
            found.append(self._judge(look, score))
            if look.over:
                self.counted(live, live.worst, live.alerted)
        return [one for one in found if one is not None]

    def _scores(self, looks: Sequence[Look]) -> list[float | None]:
        """The score of each look; None where its tenant has no forest yet."""
        scores: list[float | None] = [None] * len(looks)
        places: dict[str, list[int]] = {}
        for place, look in enumerate(looks):
            places.setdefault(look.live.who.tenant, []).append(place)
        for tenant, own in places.items():
            if (model := self._models.get(tenant)) is not None:
                vectors = np.log1p(np.array([looks[place].figures for place in own]))
                for place, score in zip(own, model.forest.scores(vectors).tolist(), strict=True):
                    scores[place] = score
        return scores

    def _judge(self, look: Look, score: float) -> Finding | None:
        live = look.live
        if score <= live.worst:
            return None
        live.worst = score
        if live.alerted and self.listen is None:
            return None
        standing = self.calibrator.judge(live.who, score)
        self.tell(live, look.event_id, look.at, score, standing)
        if live.alerted or not standing.alerts:
            return None
        live.alerted = True
        return self._found(look, score, standing)

    def _found(self, look: Look, score: float, standing: Standing) -> Finding:
        live, model = look.live, self._models[look.live.who.tenant]
        far = sorted(range(len(FIGURES)), key=lambda place: -_distance(model, look.figures, place))[:TOLD]
        told: list[dict[str, Any]] = [
            {
                "figure": FIGURES[place],
                "observed": look.figures[place],
                "usual": round(float(np.expm1(model.usual[place])), 1),
                "distance": round(_distance(model, look.figures, place), 1),
            }
            for place in far
        ]
        most = "; ".join(
            f"{number(one['observed'])} {one['figure']}, usually {number(one['usual'])}" for one in told
        )
        usual = "none yet" if standing.usual is None else number(standing.usual)
        finding = self.finding(
            live,
            row=look.row,
            level="low",
            reason=(
                f"{most}; isolation {number(score)}, this agent's usual session has {usual}; "
                f"{one_in(standing.p_value)} sessions of this {standing.pool}"
            ),
            evidence={
                "observed": {"isolation": round(score, 3), "figures": told},
                "expected": {"isolation": None if standing.usual is None else round(standing.usual, 3)},
                "p_value": standing.p_value,
                "fitted_on": model.sessions,
                "full": standing.stage == FULL,
                "profile": standing.profile(),
            },
            event_ids=(look.event_id,),
            event_count=1,
            session_id=live.session_id,
            parts=(live.session_id, live.first_event),
        )
        # the session may have gone on within the batch
        return msgspec.structs.replace(finding, timestamp=look.at)

    def declared(self, who: Who, event: Event, values: tuple[Any, ...]) -> None:
        """After a declared change other sessions are to be expected."""
        if values[-1] in REBASING:
            self._looks.append(who)

    def state(self) -> dict[str, Any]:
        """Live sessions, models and calibration as plain data."""
        return {
            "version": self.state_version,
            "table": self.table.state(),
            "calibrator": self.calibrator.state(),
            "models": [[tenant, model.state()] for tenant, model in self._models.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``. Raises ValueError where the version is not known."""
        self.checked(state)
        self.table.restore(state["table"])
        self.calibrator.restore(state["calibrator"])
        self._models = OrderedDict((tenant, Model.restored(model)) for tenant, model in state["models"])
        self._looks = []


def _look(live: OutlierSession, row: int, over: bool) -> Look:
    return Look(live, row, live.latest, live.latest_at, tuple(live.figures), over)


def _distance(model: Model, figures: Sequence[float], place: int) -> float:
    """How far a figure is from usual, in units of its usual distance."""
    return abs(float(np.log1p(figures[place])) - model.usual[place]) / model.spread[place]
