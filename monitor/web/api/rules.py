"""Rules over the API: what is in force, with its record."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel
from sqlalchemy.orm import Session

from monitor.web.api.silences import SilenceShown
from monitor.web.auth import ApiRead
from monitor.web.context import InConsole
from monitor.web.problems import Problem
from monitor.web.rules import DAYS, RuleLine, by_day, rule_lines, silences_of

router = APIRouter(prefix="/api/v1/rules", tags=["rules"])


class Precision(BaseModel):
    """The share of true positives among the alerts judged, with its 95% interval (Wilson)."""

    share: float
    low: float
    high: float


class RuleSummary(BaseModel):
    """A rule or a learning detector. ``kind`` is ``sigma``, ``learned`` or ``own``."""

    rule_id: str
    title: str
    level: str
    kind: str
    alerts: int
    open_alerts: int
    last_event_at: int | None
    verdicts: dict[str, int]
    judged: int
    precision: Precision | None


class RulePage(BaseModel):
    """Every rule in force and whatever else has fired; the latest to fire first."""

    items: list[RuleSummary]


class RuleDetail(BaseModel):
    """A rule with its text, its tests, alerts by day over thirty days, and its silences."""

    rule: RuleSummary
    version: str | None
    text: str | None
    description: str | None
    tags: list[str]
    tests: list[str]
    alerts_by_day: list[int]
    silences: list[SilenceShown]


@router.get("")
def list_rules(console: InConsole, caller: ApiRead) -> RulePage:
    """Every rule with its record, among the alerts that the caller may see."""
    with console.state.read() as session:
        lines = rule_lines(session, console.alert_desk.rules, caller.tenant)
    return RulePage(items=[_summary(line) for line in lines])


@router.get("/{rule_id:path}")
def get_rule(
    rule_id: Annotated[str, Path(min_length=1, max_length=300)], console: InConsole, caller: ApiRead
) -> RuleDetail:
    """One rule: 404 where none is in force and none has ever fired."""
    with console.state.read() as session:
        return _detail(session, console.alert_desk.rules, rule_id, caller.tenant)


def _detail(session: Session, rules: Any, rule_id: str, tenant: str | None) -> RuleDetail:
    line = next((one for one in rule_lines(session, rules, tenant) if one.rule_id == rule_id), None)
    if line is None:
        raise Problem(404, "no such rule is in force, and none has ever fired; GET /api/v1/rules lists them")
    counts = dict(by_day(session, rule_id, tenant=tenant))
    rule = line.rule
    return RuleDetail(
        rule=_summary(line),
        version=rule.version if rule else None,
        text=rule.text if rule else None,
        description=rule.description if rule else None,
        tags=list(rule.tags) if rule else [],
        tests=[str(test.get("name", "")) for test in rule.tests] if rule else [],
        alerts_by_day=[counts.get(day, 0) for day in range(DAYS)],
        silences=[SilenceShown.model_validate(one) for one in silences_of(session, rule_id, tenant)],
    )


def _summary(line: RuleLine) -> RuleSummary:
    told = line.precision
    return RuleSummary(
        rule_id=line.rule_id,
        title=line.title,
        level=line.level,
        kind=line.kind,
        alerts=line.alerts,
        open_alerts=line.open_alerts,
        last_event_at=line.last,
        verdicts=line.verdicts,
        judged=line.judged,
        precision=Precision(share=told[0], low=told[1], high=told[2]) if told else None,
    )
