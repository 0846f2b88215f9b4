"""What every request handler may reach."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from detectors.sigma.rule import Rule
from monitor.alerting.alerts import AlertDesk
from monitor.response.orders import OrderDesk
from monitor.settings import Settings
from monitor.sources.keys import Keys
from monitor.store.queries import Readers
from monitor.store.state import State
from monitor.web.provider import Provider


@dataclass(frozen=True)
class Console:
    """The parts of the daemon that the console shows and drives."""

    state: State
    settings: Settings
    readers: Readers
    alert_desk: AlertDesk
    order_desk: OrderDesk
    store_ready: Callable[[], object]
    keys: Keys
    provider: Provider | None = None
    dashboards_turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    @property
    def https(self) -> bool:
        """Whether people reach the console by https."""
        return (self.settings.console.public_url or "").startswith("https://")

    def rule(self, rule_id: str) -> Rule | None:
        """The Sigma rule as it is loaded now; None for a learning detector's or a rule that is gone."""
        found = self.alert_desk.rules.get(rule_id)
        return found if isinstance(found, Rule) else None

    def rule_name(self, rule_id: str) -> str:
        """What people call a rule: its file's name, as an id says nothing."""
        rule = self.rule(rule_id)
        return Path(rule.path).stem if rule is not None and rule.path else rule_id


def console_of(request: Request) -> Console:
    """The console that this request was sent to."""
    console = request.app.state.console
    assert isinstance(console, Console)
    return console


InConsole = Annotated[Console, Depends(console_of)]
