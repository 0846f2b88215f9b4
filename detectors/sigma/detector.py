"""The Sigma detector: rules over batches of events, as `detectors.base.Detector`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectors.base import Batch, Finding
from detectors.sigma.evidence import findings
from detectors.sigma.frame import Matcher
from detectors.sigma.judges import AbsenceJudge, CorrelationJudge, Found, Judge, SingleJudge
from detectors.sigma.rule import Rule, RuleSet

STATE_VERSION = 2


class SigmaDetector:
    """Judges every event by every rule; keeps state for correlations and absences only.

    ``process`` is ``at_once`` and ``in_turn`` together, for a batch in which no event waits.
    ``columns`` are the attribute columns that a batch must have.
    """

    name = "sigma"

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        trees = [rule for rule in rules.rules if rule.tree is not None]
        self._places = {name: place for place, rule in enumerate(trees) for name in (rule.id, rule.key)}
        self._matcher = Matcher([rule.tree for rule in trees if rule.tree is not None])
        self._gates = [AbsenceJudge(rule, self._places) for rule in rules.rules if rule.absences]
        gates: dict[str, Judge] = {gate.rule.id: gate for gate in self._gates}
        self._judges = [gates.get(rule.id) or self._judge(rule) for rule in rules.rules if rule.generate]
        self._single = [judge for judge in self._judges if isinstance(judge, SingleJudge)]
        self._in_turn = [judge for judge in self._judges if not isinstance(judge, SingleJudge)]
        self.columns = tuple(f"attributes.{key}" for key in rules.attribute_keys)
        self._stateful = {_slot(judge.rule): judge for judge in (*self._gates, *self._judges)}

    def _judge(self, rule: Rule) -> Judge:
        if rule.correlation is not None:
            return CorrelationJudge(rule, rule.correlation, self._places, self.rules)
        return SingleJudge(rule, self._places)

    def process(self, batch: Batch) -> list[Finding]:
        """Findings of all rules in row order; equal however the stream is cut.

        A batch that makes it raise, whatever that is, leaves the state as it was before.
        """
        return self._kept(batch, self._gates, self._judges)

    def at_once(self, batch: Batch) -> list[Finding]:
        """Findings of the rules over one event; nothing is kept."""
        return self._kept(batch, (), self._single)

    def in_turn(self, batch: Batch) -> list[Finding]:
        """Findings of the rules that keep state: correlations, and absences before an event."""
        return self._kept(batch, self._gates, self._in_turn)

    def _kept(self, batch: Batch, gates: Sequence[AbsenceJudge], judges: Sequence[Judge]) -> list[Finding]:
        if not judges or batch.frame.is_empty():
            return []
        try:
            found = self._judged(batch, gates, judges)
        except BaseException:  # a panic of polars is no Exception
            for judge in self._stateful.values():
                judge.undo()
            raise
        for judge in self._stateful.values():
            judge.settle()
        return found

    def _judged(self, batch: Batch, gates: Sequence[AbsenceJudge], judges: Sequence[Judge]) -> list[Finding]:
        found = Found(batch.frame, self._matcher.match(batch.frame))
        for gate in gates:
            gate.narrow(found)
        verdicts = [verdict for judge in judges for verdict in judge.judge(found)]
        verdicts.sort(key=lambda verdict: verdict.row)
        return findings(verdicts, batch.frame, found.matches)

    def tick(self, now: int) -> list[Finding]:
        """Forget what no window can reach any more; Sigma rules find nothing without an event."""
        for judge in self._stateful.values():
            judge.tick(now)
        return []

    @property
    def evicted(self) -> int:
        """Groups of correlations and absences given up since the process began."""
        return sum(judge.evicted for judge in self._stateful.values())

    def state(self) -> dict[str, Any]:
        """The state of each rule that has any, under its id and version."""
        states = {slot: judge.state() for slot, judge in self._stateful.items()}
        return {"version": STATE_VERSION, "rules": {slot: state for slot, state in states.items() if state}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``; a rule that was changed since then starts anew.

        Raises ValueError where the version is not known.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"state of the sigma detector has version {state.get('version')!r}, not {STATE_VERSION}"
            )
        for slot, judge in self._stateful.items():
            kept = state["rules"].get(slot)
            if kept:
                judge.restore(kept)


def _slot(rule: Rule) -> str:
    return f"{rule.id}@{rule.version}"
