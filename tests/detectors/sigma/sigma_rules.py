"""Builders for rule tests: a rule set from YAML, and the findings it makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import polars as pl

from detectors.base import Batch, Finding
from detectors.sigma import RuleError, RuleSet, SigmaDetector
from detectors.sigma.load import load_texts
from monitor.events import Record, arrow_batch, rule_fields
from monitor.frames import to_frame
from tests.builders import frame

ID = "6b1f0c52-0000-4000-8000-{:012d}"


def rules(text: str) -> RuleSet:
    """The rule set of one file's text."""
    return load_texts([("rules.yml", text)], rule_fields())


def faults(text: str) -> list[str]:
    """Why a file's text is refused."""
    try:
        rules(text)
    except RuleError as error:
        return [reason for _, reason in error.faults]
    return []


def detection(body: str, condition: str = "s", number: int = 1, name: str = "", level: str = "high") -> str:
    """One plain rule. ``body`` is the YAML flow mapping (or list) of selection ``s``, or, where it
    has several lines, the selections themselves."""
    selections = body if "\n" in body else f"  s: {body}\n"
    lines = [f"title: rule {number}", f"id: {ID.format(number)}", "logsource: {product: ai_agent}"]
    lines += [f"name: {name}"] if name else []
    lines += [f"level: {level}"] if level else []
    return "\n".join(lines) + f"\ndetection:\n{selections}  condition: {condition}\n---\n"


def correlation(body: str, number: int = 100) -> str:
    """One correlation rule. ``body`` is the YAML flow mapping under ``correlation``."""
    return f"title: correlation {number}\nid: {ID.format(number)}\nlevel: high\ncorrelation: {body}\n---\n"


def build_frame(rule_set: RuleSet, events: Sequence[Any]) -> pl.DataFrame:
    """Records as the frame that these rules read."""
    return frame(*events, attribute_keys=rule_set.attribute_keys)


def from_dicts(rule_set: RuleSet, events: list[dict[str, Any]]) -> pl.DataFrame:
    """Wire dictionaries as that frame."""
    records = [msgspec.convert(event, Record) for event in events]
    return to_frame(arrow_batch(records), rule_set.attribute_keys)


def found(rule_set: RuleSet, *events: Any) -> list[Finding]:
    """The findings of a fresh detector on one batch."""
    return SigmaDetector(rule_set).process(Batch(build_frame(rule_set, events)))


def cut(
    rule_set: RuleSet, events: Sequence[Any], cuts: Iterable[int], checkpoints: bool = False
) -> list[Finding]:
    """The findings when the stream is cut after the given numbers of events; ``checkpoints`` moves
    the state through msgpack into a new detector at each cut. Row numbers are made absolute."""
    detector = SigmaDetector(rule_set)
    findings: list[Finding] = []
    edges = [0, *sorted({edge for edge in cuts if 0 < edge < len(events)}), len(events)]
    for start, end in pairwise(edges):
        batch = Batch(build_frame(rule_set, events[start:end]))
        findings += [
            msgspec.structs.replace(finding, row=finding.row + start) for finding in detector.process(batch)
        ]
        if checkpoints:
            state = msgspec.msgpack.decode(msgspec.msgpack.encode(detector.state()))
            detector = SigmaDetector(rule_set)
            detector.restore(state)
    return findings
