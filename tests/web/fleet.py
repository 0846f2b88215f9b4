"""A day of a fleet: a dozen agents at work with tools, models, policies and denials, the same every time."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from monitor.events import arrow_batch
from monitor.store.clickhouse import EventStore, placed
from monitor.store.state import Alert, AlertChange
from tests.builders import event
from tests.web.seeding import SECOND, Stand, finding

AGENTS = {
    "invoice-agent": (("get_invoice", "book_invoice", "send_payment"), "large", "invoice-v12"),
    "support-agent": (
        ("read_ticket", "find_customer", "export_customers", "reply"),
        "small",
        "support-v31",
    ),
    "research-agent": (("search_web", "read_page", "post_webhook"), "large", "research-v4"),
    "procurement-agent": (("get_order", "compare_offers", "send_order"), "large", "procurement-v7"),
    "hr-agent": (("read_profile", "draft_letter"), "small", "hr-v3"),
    "sales-agent": (("search_contacts", "send_mail", "export_leads"), "small", "sales-v9"),
    "devops-agent": (("read_log", "restart_service", "run_query"), "code", "devops-v22"),
    "compliance-agent": (("read_policy", "write_report"), "large", "compliance-v2"),
}
POLICIES = {
    "export_customers": ("no-bulk-export", "more than 100 customer rows"),
    "export_leads": ("no-bulk-export", "more than 100 customer rows"),
    "send_payment": ("payments-over-10k", "amount above 10,000 needs a human"),
    "post_webhook": ("known-hosts-only", "host is on no list"),
    "run_query": ("no-writes-in-production", "UPDATE outside a change window"),
    "send_mail": ("mail-outside-needs-review", "recipient is outside"),
}


def _calls(dice: random.Random, at: datetime, run: str, agent: str, number: int) -> Iterator[Any]:
    tools, model, prompt = AGENTS[agent]
    recent = at > datetime.now(UTC) - timedelta(hours=9)
    versions = {
        "model_id": f"{model}-model",
        "model_version": "2026-02" if recent and agent in ("research-agent", "support-agent") else "2026-01",
        "prompt_template_version": prompt,
        "prompt_hash": f"{'7be1' if recent and agent == 'invoice-agent' else 'a30c'}{len(agent):02x}9f4e21d0",
    }
    common = {"session_id": run, "agent_id": agent, "environment": "production"}

    def told(kind: str, after: float, **columns: Any) -> Any:
        name = f"{run}-{number}-{kind}"
        return event(kind, timestamp=at + timedelta(seconds=after), event_id=name, **common, **columns)

    yield told(
        "model.invoked",
        0,
        input_tokens=dice.randint(900, 4200),
        output_tokens=dice.randint(40, 420),
        **versions,
    )
    call = {"tool_name": dice.choice(tools), "tool_call_id": f"c{number}"}
    yield told("tool.requested", 1.2, **call)
    policy = POLICIES.get(str(call["tool_name"]))
    if policy and dice.random() < 0.3:
        denied = {"policy_id": policy[0], "policy_decision": "deny", "policy_reason": policy[1]}
        yield told("policy.checked", 1.4, outcome="blocked", **denied, **call)
        return
    if policy:
        escalated = dice.random() < 0.1
        yield told(
            "policy.checked",
            1.4,
            policy_id=policy[0],
            policy_decision="escalate" if escalated else "allow",
            **call,
        )
        if escalated:
            yield told("human.reviewed", 30, reviewer_id="bea", review_decision="approve", **call)
    ends = dice.choices(("success", "failure", "timeout"), (93, 5, 2))[0]
    yield told("tool.executed", 2.4, outcome=ends, **call)


def _session(dice: random.Random, at: datetime, number: int) -> Iterator[Any]:
    agent = dice.choices(tuple(AGENTS), (9, 14, 7, 4, 2, 6, 5, 1))[0]
    run = f"run-{number:05d}"
    common = {"session_id": run, "agent_id": agent, "environment": "production"}
    yield event("task.created", timestamp=at, event_id=f"{run}-begin", **common)
    for turn in range(dice.randint(1, 6)):
        at += timedelta(seconds=dice.uniform(4, 40))
        yield from _calls(dice, at, run, agent, turn)
    yield event("task.completed", timestamp=at + timedelta(seconds=3), event_id=f"{run}-end", **common)


def fleet(store: EventStore, until: datetime | None = None, hours: float = 24, an_hour: int = 60) -> int:
    """Stores the day before ``until``, busier by day than by night; how many events that were."""
    dice = random.Random(7)
    until = until or datetime.now(UTC)
    told: list[Any] = []
    number, minutes = 0, int(hours * 60)
    for minute in range(minutes):
        at = until - timedelta(minutes=minutes - minute)
        share = an_hour / 60 * (0.55 + 0.45 * math.sin((at.hour + at.minute / 60 - 8) / 24 * 2 * math.pi))
        while dice.random() < share / (share + 1):
            number += 1
            told += _session(dice, at + timedelta(seconds=dice.uniform(0, 59)), number)
    told = [each for each in told if each.timestamp < until]
    store.insert(placed(pa.Table.from_batches([arrow_batch(told)]), 900), token=f"fleet-{until.isoformat()}")
    return len(told)


def judged_alerts(stand: Stand) -> None:
    """Sixty alerts of a day, most of them with a verdict."""
    dice = random.Random(11)
    rules = {
        "learned.tool-sequence": ("Unusual order of tools", "medium", (5, 3, 4)),
        "learned.policy-blocks": ("Policy blocks more often than usual", "high", (7, 2, 1)),
        "learned.provenance": ("Argument from an unusual source", "high", (6, 3, 2)),
        "learned.drift": ("Behaviour changed, and nobody declared it", "low", (2, 6, 3)),
        "learned.session-outlier": ("Session unlike the others", "informational", (1, 3, 6)),
        "watch.secret-leaves": ("Secret sent to an unknown host", "critical", (9, 0, 1)),
    }
    made = []
    for number in range(60):
        rule = dice.choices(tuple(rules), (14, 9, 12, 8, 12, 3))[0]
        title, level, _ = rules[rule]
        made.append(
            finding(
                f"day-{number}",
                rule_id=rule,
                title=title,
                level=level,
                session_id=f"judged-{number}",
                agent_id=dice.choice(tuple(AGENTS)),
            )
        )
    stand.file(*made)
    with stand.state.write() as session:
        for alert in session.query(Alert).where(Alert.session_id.startswith("judged-")):
            alert.created_at -= dice.randint(3_600, 80_000) * SECOND
            taken = dice.expovariate(1 / {"critical": 4, "high": 12}.get(alert.level, 40))
            if dice.random() < 0.85:
                session.add(_moved(alert, "acknowledged", taken))
            if alert.status == "acknowledged" and dice.random() < 0.8:
                kinds = ("true_positive", "benign_positive", "false_positive")
                alert.verdict = dice.choices(kinds, rules[alert.rule_id][2])[0]
                alert.verdict = "duplicate" if dice.random() < 0.08 else alert.verdict
                session.add(_moved(alert, "closed", 3 * taken))


def _moved(alert: Alert, status: str, minutes: float) -> AlertChange:
    """The alert's status changed so long after it was filed."""
    old, alert.status = alert.status, status
    at = alert.created_at + int(minutes * 60 * SECOND)
    told = {"old": old, "new": status, "reason": "looked at"}
    return AlertChange(alert_id=alert.id, at=at, actor="bea", field="status", **told)
