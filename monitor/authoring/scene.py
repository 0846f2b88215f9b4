"""Recorded events with everything that one rule, and those it refers to, see in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from detectors.base import Batch, Finding
from detectors.sigma import Rule, RuleSet, SigmaDetector
from detectors.sigma.detector import derived
from detectors.sigma.evidence import clean
from detectors.sigma.found import Found
from detectors.sigma.frame import Matcher
from detectors.sigma.linking import rule_columns
from detectors.sigma.tree import ATTRIBUTE, Leaf, leaves
from monitor.moments import rfc3339
from monitor.sources.anyjson import AnyJson
from monitor.sources.file import chunks
from monitor.sources.gate import Rejection

CHUNK = 5_000
MOST_EVENTS = 200_000
"""So many events of a file are looked at; the rest is left out, and the explanation says so."""

MAX_NAME = 120

Rows = npt.NDArray[np.bool_]


class Scene:
    """The events as one batch. ``rules`` are the rule and those it refers to; ``cut`` says that the
    file had more events.
    """

    def __init__(self, rules: RuleSet, frame: pl.DataFrame, cut: bool = False) -> None:
        self.rules = rules
        self.plain = frame
        self.cut = cut
        made = derived(rules)
        trees = {rule.id: rule.tree for rule in rules.rules if rule.tree is not None and not rule.missing}
        known = tuple(dict.fromkeys(chain.from_iterable(leaves(tree) for tree in trees.values())))
        frame = frame.with_columns(made) if made else frame
        matches = Matcher([*trees.values(), *known]).match(frame)
        self.found = Found(frame, matches)
        self.matching = {name: matches.rows(place) for place, name in enumerate(trees)}
        self.held: dict[Leaf, Rows] = {}
        for place, leaf in enumerate(known, len(trees)):
            self.held[leaf] = np.zeros(frame.height, bool)
            self.held[leaf][matches.rows(place)] = True
        self._findings: dict[str, list[Finding]] = {}

    @property
    def height(self) -> int:
        """The number of events."""
        return self.plain.height

    @cached_property
    def ids(self) -> list[str]:
        """Each event's id, printable."""
        return [clean(str(one), MAX_NAME) for one in self.found.values("event_id")]

    def findings(self, rule: Rule) -> list[Finding]:
        """What the real detector makes of the events by this rule, also where it never reports itself.

        A finding's ``row`` is that of its last event; -1 where it showed only when the events ended.
        """
        if rule.id not in self._findings:
            alone = self.rules.alone(rule)
            loud = tuple(dataclasses.replace(one, generate=one.id == rule.id) for one in alone.rules)
            detector = SigmaDetector(dataclasses.replace(alone, rules=loud))
            found = detector.process(Batch(self.plain))
            if self.height:
                last = max(self.found.times)
                found = [*found, *detector.tick(last), *detector.tick(last + detector.patience)]
            self._findings[rule.id] = found
        return self._findings[rule.id]

    def rows(self, rule: Rule) -> list[int]:
        """The events at which the rule holds, with all it asks for, ascending."""
        return [finding.row for finding in self.findings(rule) if finding.row >= 0]

    def event(self, row: int) -> dict[str, Any]:
        """What tells an event from others."""
        told = {
            name: self.found.values(name)[row]
            for name in ("event_type", "agent_id", "session_id", "tool_name")
        }
        shown = {name: clean(value, MAX_NAME) for name, value in told.items() if value}
        return {"event_id": self.ids[row], "timestamp": rfc3339(self.found.times[row]), **shown}


def scene(
    rules: RuleSet, rule: Rule, files: Sequence[Path], reject: Callable[[Path, Rejection], None]
) -> Scene:
    """Read any JSON objects as events (see `AnyJson`); refused lines go to ``reject``.

    Raises OSError where a file cannot be read.
    """
    alone = rules.alone(rule)
    named = {column.name for one in alone.rules for column in rule_columns(one) if column.attribute}
    keys = tuple(sorted(name.removeprefix(ATTRIBUTE) for name in named))
    alone = dataclasses.replace(alone, attribute_keys=keys)
    columns = SigmaDetector(alone).reads
    frames: list[pl.DataFrame] = []
    height = 0
    for file in files:
        reader = AnyJson(file.name, columns, keys)
        for chunk in chunks(file, CHUNK):
            frame, rejections = reader.frame(chunk.lines, chunk.numbers)
            for rejection in rejections:
                reject(file, rejection)
            frames.append(frame)
            height += frame.height
            if height >= MOST_EVENTS:
                return Scene(alone, pl.concat(frames).head(MOST_EVENTS), cut=True)
    empty = AnyJson("", columns, keys).frame([], [])[0]
    return Scene(alone, pl.concat(frames) if frames else empty)
