"""Watches what Watchkeeper makes of the fleet, through its API, and keeps the score."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from rich.text import Text

from monitor.client import FINAL_STATES
from monitor.simulation import stories
from monitor.simulation.catch import Catch, caught, false_alerts
from monitor.simulation.plan import Plan
from monitor.simulation.reporter import Reporter
from monitor.simulation.result import SPANS, DemoResult, spans
from monitor.simulation.site import Site

COUNT_SECONDS = 1.0
PAGE = 500


class Api(Protocol):
    """What the demo asks of a daemon; ``monitor.client.Client`` is one."""

    def get(self, path: str, **query: Any) -> Any:
        """A GET on the console's API."""

    def send(self, lines: list[bytes], live: bool) -> dict[str, Any]:
        """Send events; answered when they are durable."""


def judged(api: Api) -> int:
    """How many events detection has judged since it began."""
    for process in api.get("/api/v1/status")["processes"]:
        if process["name"] == "detection":
            return int(process["metrics"].get("judged_events", 0))
    return 0


class Watcher:
    """Looks at the API again and again and tells what is new.

    Make it before the fleet starts: alerts older than the watcher are none of its business.
    """

    def __init__(self, api: Api, plan: Plan, site: Site, report: Reporter, result: DemoResult) -> None:
        self.api = api
        self.site = site
        self.report = report
        self.result = result
        self.healthy = frozenset(member.agent_id for member in plan.healthy)
        self.victim = plan.teller(stories.SECRET).agent_id
        self._since = time.time_ns() // 1_000
        self._shown: set[str] = set()
        self._states: dict[str, str] = {}
        self._counted = 0.0

    def complete(self) -> bool:
        """Whether there is nothing left to wait for."""
        over = self.result.kill is not None and self.result.kill["state"] in FINAL_STATES
        return over and len(self.result.stories) == len(stories.STORIES)

    def look(self) -> None:
        """One look at alerts, orders and counters."""
        alerts = self._alerts()
        new = self._catch(alerts)
        self._tell(alerts, {catch.alert_id: catch for catch in new})
        orders = self._orders()
        for order in orders:
            self._order(order)
        self.result.kill = self._kill(orders)
        self.result.false_alerts = len(false_alerts(self.healthy, alerts))
        self.result.healthy_sessions = self.site.healthy_sessions
        if time.monotonic() - self._counted > COUNT_SECONDS:
            self._count()

    def _alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = self.api.get("/api/v1/alerts", created_after=self._since, cursor=cursor, limit=PAGE)
            found += [alert for alert in page["items"] if not alert["replayed"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return sorted(found, key=lambda alert: (alert["created_at"], alert["id"]))

    def _catch(self, alerts: list[dict[str, Any]]) -> list[Catch]:
        known = {catch.story for catch in self.result.stories}
        open_stories = [told for told in list(self.site.tellings.values()) if told.story not in known]
        new = [catch for telling in open_stories if (catch := caught(telling, alerts)) is not None]
        self.result.stories.extend(new)
        return new

    def _tell(self, alerts: list[dict[str, Any]], new: dict[str, Catch]) -> None:
        for alert in alerts:
            catch = new.get(alert["id"])
            note = f"{catch.story}, after {catch.detected_ms / 1_000:.1f} s" if catch else ""
            if alert["id"] not in self._shown:
                self._shown.add(alert["id"])
                self.report.alert(alert, note)
            elif catch:
                self.report.say("caught ", Text(note, style="green"), f"  by alert {alert['id']}")

    def _orders(self) -> list[dict[str, Any]]:
        page = self.api.get("/api/v1/orders", limit=PAGE)
        found = [order for order in page["items"] if order["created_at"] >= self._since]
        return sorted(found, key=lambda order: (order["created_at"], order["request_id"]))

    def _kill(self, orders: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The first automatic order for the agent that leaks a secret, one that was sent if there is one."""
        for_victim = [order for order in orders if order["agent_id"] == self.victim and order["automatic"]]
        first = next((order for order in for_victim if order["sent_at"]), next(iter(for_victim), None))
        return first and {"request_id": first["request_id"], "state": first["state"], **spans(first)}

    def _order(self, order: Mapping[str, Any]) -> None:
        if self._states.get(order["request_id"]) == order["state"]:
            return
        self._states[order["request_id"]] = order["state"]
        times = spans(order)
        words = [
            f"{name[:-3].replace('_', ' ')} {ms:,.0f} ms" for name, ms in times.items() if ms is not None
        ]
        if order["state"] == "confirmed":
            words += [str(point.get("detail", "")) for point in order["enforcement"]]
        self.report.order(order, " · ".join(words))

    def _count(self) -> None:
        self._counted = time.monotonic()
        self.result.events = judged(self.api)
        caught_now = f"{len(self.result.stories)} of {len(stories.STORIES)} stories caught"
        self.report.pulse(
            f"{self.result.events:,} events judged · {self.site.healthy_sessions} healthy sessions · "
            f"{self.site.alive()} agents · {caught_now}"
        )

    def summary(self) -> None:
        """The end of the story in a few lines."""
        self._count()
        self.report.still()
        self.report.heading("What happened")
        for catch in self.result.stories:
            text = f"{catch.story}: {catch.found_by}, after {catch.detected_ms:,.0f} ms"
            self.report.verdict("caught", "green", text)
        for story in sorted(set(stories.STORIES) - {catch.story for catch in self.result.stories}):
            self.report.verdict("missed", "bold red", story)
        self._summary_of_kill(self.result.kill)
        self.report.verdict(
            "healthy",
            "bold red" if self.result.false_alerts else "green",
            f"{self.site.healthy_sessions} sessions, {self.result.false_alerts} high or critical alerts",
        )

    def _summary_of_kill(self, kill: Mapping[str, Any] | None) -> None:
        if kill is None:
            self.report.verdict("stop", "bold red", "no automatic order was given")
            return
        style = "green" if kill["state"] == "contained" else "bold red"
        took = [
            f"{name[:-3].replace('_', ' ')} {kill[name]:,.0f} ms" for name in SPANS if kill[name] is not None
        ]
        self.report.verdict("stop", style, f"{kill['state']}: {', '.join(took)}")
