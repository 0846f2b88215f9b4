"""The Sigma detector: rules over batches of events, as `detectors.base.Detector`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from detectors.base import Batch, Finding
from detectors.sigma.evidence import ALWAYS, findings
from detectors.sigma.followers import FollowerJudge
from detectors.sigma.found import Found
from detectors.sigma.frame import Matcher
from detectors.sigma.gates import AbsenceGate, Gate, NoveltyGate
from detectors.sigma.judges import CorrelationJudge, Judge, SingleJudge
from detectors.sigma.linking import rule_columns
from detectors.sigma.rule import Rule, RuleSet

STATE_VERSION = 4


class SigmaDetector:
    """Judges every event by every rule; keeps state for correlations and absences only.

    ``process`` is ``at_once`` and ``in_turn`` together, for a batch in which no event waits.
    ``columns`` are the attribute columns that a batch must have; ``reads`` all the others that are
    looked at.
    """

    name = "sigma"

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        awake = [rule for rule in rules.rules if not rule.missing]
        trees = [rule for rule in awake if rule.tree is not None]
        places = {name: place for place, rule in enumerate(trees) for name in (rule.id, rule.key)}
        self._matcher = Matcher([rule.tree for rule in trees if rule.tree is not None])
        self._derived = derived(rules)
        self._gates: list[Gate] = [AbsenceGate(rule, places) for rule in trees if rule.absences]
        self._gates += [NoveltyGate(rule, rule.first_seen, places) for rule in trees if rule.first_seen]
        self._followers = [FollowerJudge(rule, places) for rule in trees if rule.followers]
        self._single = [SingleJudge(rule, places) for rule in trees if rule.generate and not rule.extended]
        self._correlations = [
            CorrelationJudge(rule, rule.correlation, places, rules)
            for rule in _inner_first(awake, rules)
            if rule.correlation is not None
        ]
        self._in_turn: list[Judge] = [*self._gates, *self._correlations]
        self.columns = tuple(f"attributes.{key}" for key in rules.attribute_keys)
        self.reads = _read(rules)
        stateful: list[Gate | CorrelationJudge | FollowerJudge] = [*self._gates, *self._correlations]
        self._stateful = {_slot(judge.rule): judge for judge in (*stateful, *self._followers)}

    @property
    def version(self) -> str:
        """The rules' hash."""
        return self.rules.hash

    def process(self, batch: Batch) -> list[Finding]:
        """Findings of all rules in row order; equal however the stream is cut.

        A batch that makes it raise, whatever that is, leaves the state as it was before.
        """
        return self._kept(batch, [*self._single, *self._in_turn], in_turn=True)

    def at_once(self, batch: Batch) -> list[Finding]:
        """Findings of the rules over one event; nothing is kept."""
        return self._kept(batch, self._single, in_turn=False)

    def in_turn(self, batch: Batch) -> list[Finding]:
        """Findings of the rules that keep state: correlations, absences and what is new."""
        return self._kept(batch, self._in_turn, in_turn=True)

    def _kept(self, batch: Batch, judges: Sequence[Judge], in_turn: bool) -> list[Finding]:
        if batch.frame.is_empty() or not (judges or (in_turn and self._followers)):
            return []
        try:
            found = self._judged(batch, judges, in_turn)
            if in_turn:
                for follower in self._followers:
                    follower.settle()
        except BaseException:  # a panic of polars is no Exception
            for judge in self._stateful.values():
                judge.undo()
            raise
        for judge in self._stateful.values():
            judge.settle()
        return found

    def _judged(self, batch: Batch, judges: Sequence[Judge], in_turn: bool) -> list[Finding]:
        frame = batch.frame.with_columns(self._derived) if self._derived else batch.frame
        found = Found(frame, self._matcher.match(frame))
        for gate in self._gates if in_turn else ():
            gate.narrow(found)
        verdicts = [verdict for judge in judges for verdict in judge.judge(found) if judge.rule.generate]
        verdicts.sort(key=lambda verdict: verdict.row)
        told = findings(verdicts, frame, found.matches)
        if in_turn and self._followers:
            told += [one for follower in self._followers for one in follower.findings(found)]
            told.sort(key=lambda finding: finding.row)
        return told

    def tick(self, now: int) -> list[Finding]:
        """What has not come by now; forgets what no window can reach any more."""
        for judge in self._in_turn:
            judge.tick(now)
        found = [one for follower in self._followers for one in follower.tick(now)]
        return sorted(found, key=lambda finding: finding.finding_id)

    @property
    def patience(self) -> int:
        """Microseconds after an event at which a tick has shown every absence that it began."""
        return max((follower.patience for follower in self._followers), default=0)

    @property
    def evicted(self) -> int:
        """Groups and hits that rules have given up since the process began."""
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


def _inner_first(awake: Sequence[Rule], rules: RuleSet) -> list[Rule]:
    """Correlations after those they refer to."""
    ordered: dict[str, Rule] = {}

    def add(rule: Rule) -> None:
        for name in rule.used:
            base = rules.get(name)
            if base is not None:
                add(base)
        ordered.setdefault(rule.id, rule)

    for rule in awake:
        add(rule)
    return list(ordered.values())


def derived(rules: RuleSet) -> list[pl.Expr]:
    """The derived fields that a rule names, as expressions."""
    named = {column.name for rule in rules.rules for column in rule_columns(rule)}
    return [
        pl.concat_str(parts, separator="/").alias(name)
        for name, parts in rules.fields.derived.items()
        if name in named
    ]


def _read(rules: RuleSet) -> tuple[str, ...]:
    named = [column.name for rule in rules.rules for column in rule_columns(rule)]
    named += [part for parts in rules.fields.derived.values() for part in parts]
    told = [name for name in (*ALWAYS, "ingested_at", *named) if name in rules.fields.columns]
    return tuple(dict.fromkeys([*told, "repeat_of"]))


def _slot(rule: Rule) -> str:
    return f"{rule.id}@{rule.version}"
