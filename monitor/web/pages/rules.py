"""The rules in force with their record, and the page of one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select

from monitor.store.state import Alert, now
from monitor.web.auth import PageRead
from monitor.web.context import InConsole
from monitor.web.pages.common import page
from monitor.web.problems import Problem
from monitor.web.rules import by_day, rule_lines, silences_of

router = APIRouter(include_in_schema=False)

MOST_ALERTS = 100


@router.get("/rules")
def rules(console: InConsole, caller: PageRead) -> HTMLResponse:
    """Every rule and detector: how often it fired, and how often it was right."""
    with console.state.read() as session:
        lines = rule_lines(session, console.alert_desk.rules)
    return page("rules.html", caller, lines=lines, rule_name=console.rule_name)


@router.get("/rules/{rule_id:path}")
def rule(rule_id: str, console: InConsole, caller: PageRead) -> HTMLResponse:
    """One rule: its text, its tests, when it fired and what people said of it."""
    with console.state.read() as session:
        found = next(
            (one for one in rule_lines(session, console.alert_desk.rules) if one.rule_id == rule_id), None
        )
        if found is None:
            raise Problem(
                404, "no such rule is in force, and none has ever fired; /rules lists those there are"
            )
        newest = select(Alert).where(Alert.rule_id == rule_id).order_by(Alert.last_event_at.desc())
        alerts = session.scalars(newest.limit(MOST_ALERTS)).all()
        days, silences = by_day(session, rule_id), silences_of(session, rule_id)
    shown: dict[str, Any] = {"line": found, "alerts": alerts, "days": days, "rule_name": console.rule_name}
    tallest = max((count for _, count in days), default=0)
    return page("rule.html", caller, tallest=tallest, silences=silences, moment=now(), **shown)
