"""The rules in force: those of the settings, with the site's lists, over the event schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from detectors.sigma import RuleSet, load_rules
from monitor.alerting.alerts import AlertDesk
from monitor.events import Record, arrow_batch, rule_fields
from monitor.frames import to_frame
from monitor.response.orders import OrderDesk
from monitor.settings import Settings


def load(settings: Settings, paths: Sequence[Path] = ()) -> RuleSet:
    """The rules of ``paths``, or of the settings where there are none; all or nothing.

    Raises RuleError with every fault of every file.
    """
    pipelines = settings.detection.pipelines
    return load_rules(paths or settings.detection.rules, rule_fields(), settings.lists, pipelines)


def in_force(rules: RuleSet, alerts: AlertDesk, orders: OrderDesk) -> None:
    """Have both desks know these rules: their runbooks, and what they answer."""
    alerts.rules = {rule.id: rule for rule in rules.rules}
    orders.responses = {rule.id: rule.response for rule in rules.rules if rule.response}


def frame_of(rules: RuleSet, events: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Wire dictionaries, complete and checked, as the frame that these rules read."""
    return to_frame(arrow_batch([msgspec.convert(event, Record) for event in events]), rules.attribute_keys)
