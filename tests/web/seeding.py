"""A console with something in it: real rules over made-up sessions, alerts, an order, heartbeats."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from fastapi import FastAPI

from detectors.base import Batch, Finding, stable_id
from detectors.sigma import SigmaDetector, load_rules
from monitor.alerting.alerts import AlertDesk
from monitor.events import arrow_batch, rule_fields
from monitor.frames import to_frame
from monitor.response.orders import OrderDesk
from monitor.settings import Settings, shipped_rules
from monitor.store.clickhouse import EventStore, placed
from monitor.store.heartbeat import beat
from monitor.store.migrate import migrate_state
from monitor.store.queries import Readers
from monitor.store.state import Alert, Delivery, State, now
from monitor.web.app import console_app
from tests.builders import event

SECOND = 1_000_000
HOSTILE = "<img src=x onerror=alert(1)>\"'\u202egpj.exe\x1b[31m{{7*7}}</script>"
RULES = load_rules([shipped_rules()], rule_fields())
ENDPOINT = {"name": "agent-gateway", "url": "https://gateway.example/kill", "secrets": ["whsec_c2VjcmV0"]}


@dataclass
class Stand:
    """A console application with all its parts, on a folder of its own."""

    app: FastAPI
    state: State
    settings: Settings
    desk: AlertDesk
    orders: OrderDesk
    readers: Readers
    store: EventStore

    def file(self, *findings: Finding) -> list[Alert]:
        """File findings, as detection does."""
        with self.state.write() as session:
            return self.desk.file(session, findings)


@contextmanager
def console(data: Path, store: EventStore, **settings: Any) -> Iterator[Stand]:
    """The console on a fresh state database and an open event store."""
    chosen = Settings(data=data, **{"containment": {"mode": "enforce", "endpoints": [ENDPOINT]}, **settings})
    migrate_state(chosen.state_file)
    state = State(chosen.state_file)
    desk = AlertDesk(state, {rule.id: rule for rule in RULES.rules}, chosen)
    responses = {rule.id: rule.response for rule in RULES.rules if rule.response}
    orders = OrderDesk(state, chosen.containment, responses)
    readers = Readers(store)
    app = console_app(state, chosen, readers, desk, orders, store_ready=store.ping)
    try:
        yield Stand(app, state, chosen, desk, orders, readers, store)
    finally:
        readers.close()
        state.close()


def finding(name: str = "f1", **values: Any) -> Finding:
    """A finding of a learning detector, ``ago`` seconds old."""
    ago = values.pop("ago", 0)
    known: dict[str, Any] = {
        "finding_id": stable_id("f", name),
        "detector": "tool_sequence",
        "rule_id": "learned.tool-sequence",
        "rule_version": "1",
        "title": "Unusual order of tools",
        "reason": "search_contacts after read_secret costs 14.2 bits; this agent's usual step costs 2.1",
        "level": "medium",
        "tenant": "default",
        "agent_id": "research-agent",
        "session_id": f"session-{name}",
        "timestamp": now() - ago * SECOND,
        "event_ids": (f"event-{name}",),
        "event_count": 1,
        "learned": True,
    }
    return Finding(**known | values)


def beats(state: State) -> None:
    """Signs of life of all three processes."""
    edge = {"events": 184_220, "requests": 2_310, "rejected_total": 3, "spool_bytes": 48_311_296}
    judged = {"judged_events": 184_212, "lag_ms": 41, "findings_total": 57}
    known = (
        ("invoice-agent", 412, "full"),
        ("support-agent", 1_907, "full"),
        ("onboarding-agent", 17, "shadow"),
    )
    profiles = [
        {
            "agent_id": agent,
            "tenant": "default",
            "sessions": sessions,
            "stage": stage,
            "detectors": {"provenance": sessions, "tool_sequence": sessions, "drift": sessions - 3},
        }
        for agent, sessions, stage in known
    ]
    beat(state, "edge", edge, {"dead_letters": 3})
    beat(state, "detection", judged, {"profiles": profiles})
    beat(state, "console", {"stored_events": 183_904, "stored_segment": 311}, {})


def _session(
    agent: str, session: str, begin: datetime, steps: list[tuple[float, str, dict[str, Any]]]
) -> list[Any]:
    return [
        event(
            kind,
            agent_id=agent,
            session_id=session,
            timestamp=begin + timedelta(seconds=after),
            event_id=f"{session}-{number:03d}",
            environment="production",
            identity="bound",
            **columns,
        )
        for number, (after, kind, columns) in enumerate(steps)
    ]


def _invoice(begin: datetime) -> list[Any]:
    pay = {
        "tool_name": "send_payment",
        "tool_call_id": "call-88",
        "target": "bank.example",
        "effect": "irreversible",
    }
    args = '{"iban": "DE02120300000000202051", "amount": 18400.00, "reference": "INV-20931"}'
    return _session(
        "invoice-agent",
        "inv-20931",
        begin,
        [
            (0.0, "task.created", {"task_goal": "Check invoice INV-20931 of Nordwind GmbH and book it."}),
            (0.4, "model.invoked", {"model_id": "large-2026-02", "input_tokens": 2210, "output_tokens": 96}),
            (
                1.9,
                "tool.requested",
                {"tool_name": "get_invoice", "tool_call_id": "call-86", "target": "erp.example"},
            ),
            (
                2.0,
                "tool.approved",
                {"tool_name": "get_invoice", "tool_call_id": "call-86", "decision_source": "config"},
            ),
            (
                2.6,
                "tool.executed",
                {
                    "tool_name": "get_invoice",
                    "tool_call_id": "call-86",
                    "target": "erp.example",
                    "outcome": "success",
                },
            ),
            (4.1, "model.invoked", {"model_id": "large-2026-02", "input_tokens": 2790, "output_tokens": 143}),
            (5.0, "tool.requested", {**pay, "tool_args": args, "amount": 18400.0, "risk_tier": "high"}),
            (
                5.1,
                "policy.checked",
                {
                    **pay,
                    "policy_id": "payments-over-10k",
                    "policy_decision": "deny",
                    "policy_reason": "amount above 10,000 needs a human",
                    "outcome": "blocked",
                },
            ),
            (6.8, "model.invoked", {"model_id": "large-2026-02", "input_tokens": 2981, "output_tokens": 71}),
            (
                9.2,
                "tool.executed",
                {
                    **pay,
                    "tool_args": args,
                    "amount": 18400.0,
                    "outcome": "success",
                    "tool_result": '{"state": "sent"}',
                },
            ),
            (10.0, "model.invoked", {"model_id": "large-2026-02", "input_tokens": 3105, "output_tokens": 52}),
            (10.9, "task.completed", {"outcome": "success"}),
        ],
    )


def _support(begin: datetime) -> list[Any]:
    denied = {
        "policy_id": "no-bulk-export",
        "policy_decision": "deny",
        "policy_reason": "more than 100 customer rows",
        "outcome": "blocked",
        "tool_name": "export_customers",
    }
    steps: list[tuple[float, str, dict[str, Any]]] = [
        (0, "task.created", {"task_goal": "Answer ticket 7712 about a missing refund."})
    ]
    for turn in range(7):
        at = 3.0 + 11 * turn
        steps.append((at, "model.invoked", {"model_id": "small-2025-11", "input_tokens": 900 + 60 * turn}))
        steps.append(
            (at + 1.2, "tool.requested", {"tool_name": "export_customers", "tool_args": '{"rows": 5000}'})
        )
        steps.append((at + 1.4, "policy.checked", denied))
    return _session("support-agent", "ticket-7712", begin, steps)


def seed(stand: Stand, store: EventStore | None = None) -> None:
    """Two weeks of background, four stories, some triage, one proven stop, signs of life."""
    moment = datetime.now(UTC)
    sessions = [_support(moment - timedelta(minutes=11)), _invoice(moment - timedelta(minutes=3))]
    table = pa.Table.from_batches([arrow_batch([each for session in sessions for each in session])])
    if store is not None:
        store.insert(placed(table, 1), token="seed-1")
    _background(stand)
    stand.file(*SigmaDetector(RULES).process(Batch(to_frame(table, RULES.attribute_keys))))
    stand.file(*_learned())
    _triage(stand)
    _stop(stand, now() - 171 * SECOND)
    with stand.state.write() as session:
        session.add(
            Delivery(
                id="d1",
                channel="slack",
                kind="alert",
                alert_id=None,
                payload={},
                attempts=3,
                next_attempt_at=now(),
                created_at=now(),
                last_error="HTTP 503 from Slack; tried again in 8 s",
            )
        )
    beats(stand.state)


def _background(stand: Stand) -> None:
    kinds = [
        ("Unusual order of tools", "learned.tool-sequence", "tool_sequence", "medium", "research-agent"),
        ("More tool errors than usual", "learned.rates", "rates", "low", "hr-agent"),
        (
            "Policy blocks more often than usual",
            "learned.policy-blocks",
            "policy_blocks",
            "medium",
            "sales-agent",
        ),
        ("Long session", "learned.session-outlier", "session_outlier", "informational", "devops-agent"),
        ("Unusual order of tools", "learned.tool-sequence", "tool_sequence", "high", "devops-agent"),
    ]
    made = []
    for number in range(40):
        title, rule, detector, level, agent = kinds[(number * 7) % 5]
        ago = 3_600 * 5 * number + (number * number * 977) % 14_000 + 2_400
        made.append(
            finding(
                f"past-{number}",
                title=title,
                rule_id=rule,
                detector=detector,
                level=level,
                agent_id=agent,
                ago=ago,
                session_id=f"run-{4200 + number * 13}",
                reason=f"{3 + number % 9} in 10 min; usual is {1 + number % 3}. 1 in {200 + number} runs",
            )
        )
    stand.file(*made)
    with stand.state.write() as session:
        for number, item in enumerate(made):
            if number > 9:
                alert = session.query(Alert).where(Alert.session_id == item.session_id).one()
                verdict = ("benign_positive", "false_positive", "true_positive", "duplicate")[number % 4]
                stand.desk.change(
                    session, alert.id, "bea", status="closed", verdict=verdict, reason="known batch job"
                )


def _learned() -> list[Finding]:
    return [
        finding(
            "exfil",
            level="high",
            ago=412,
            session_id="res-5591",
            title="Secret read, then sent out in an unusual order",
            reason=(
                "post_webhook after read_secret costs 14.2 bits, this agent's usual step costs 2.1; "
                "1 in 2,300 sessions of research-agent looks like this"
            ),
            evidence={
                "observed": {"bits of the worst step": 14.2, "tools in the session": 9},
                "expected": {"bits of the worst step": "below 9.4", "tools in the session": "4 to 12"},
                "next_tool": {"read_page": 0.81, "search_web": 0.17},
                "p_value": 0.00043,
                "sequence": ["search_web", "read_page", "read_secret", "post_webhook"],
                "sessions_learned": 2301,
            },
        ),
        finding(
            "drift",
            level="medium",
            ago=1_300,
            detector="drift",
            rule_id="learned.drift",
            agent_id="procurement-agent",
            session_id=None,
            group={"agent_id": "procurement-agent"},
            title="Behaviour changed, and nobody declared a change",
            reason=(
                "Output per call fell from 143 to 61 tokens over 19 sessions, when model_version went from "
                "2026-01 to 2026-02 with no change declared"
            ),
            evidence={
                "observed": {"output tokens per call": 61, "model_version": "2026-02"},
                "expected": {"output tokens per call": 143, "model_version": "2026-01"},
                "sessions_since": 19,
            },
        ),
        finding(
            "chatty",
            level="low",
            ago=95,
            agent_id="onboarding-agent",
            session_id="onb-0017",
            detector="rates",
            rule_id="learned.rates",
            title="More calls than usual",
            reason="41 calls in 10 min; usual is 6 to 30. This agent is new: 17 sessions seen, 50 are needed",
        ),
    ]


def _triage(stand: Stand) -> None:
    with stand.state.write() as session:
        by_session = {alert.session_id: alert for alert in session.query(Alert)}
        stand.desk.change(
            session,
            by_session["ticket-7712"].id,
            "bea",
            status="in_progress",
            owner="bea",
            reason="asking the team",
        )
        stand.desk.change(session, by_session["res-5591"].id, "admin", status="acknowledged", reason="")


def _stop(stand: Stand, base: int) -> None:
    with stand.state.write() as session:
        query = session.query(Alert).where(Alert.session_id == "inv-20931", Alert.level == "critical")
        order = stand.orders.consider(session, query.first())
        order.detected_at, order.created_at = base, base + 38_000
        point = {"name": "gateway", "state": "contained", "detail": "2 calls refused"}
        stand.orders.move(session, order, "sent", "worker", "attempt 1", sent_at=base + 61_000, attempts=1)
        stand.orders.move(session, order, "accepted", "worker", "202, polling", accepted_at=base + 143_000)
        stand.orders.move(
            session,
            order,
            "confirmed",
            "worker",
            "every enforcement point confirmed",
            confirmed_at=base + 402_000,
            enforcement=[point],
            endpoint="agent-gateway",
            last_action_at=base + 96_000,
        )
        stand.orders.move(
            session,
            order,
            "contained",
            "proof",
            "no activity after confirmation and grace",
            silent_at=base + 15_902_000,
        )


def open_store(data: Path) -> EventStore:
    """An embedded event store in ``data``; temporary files of this process move beside it."""
    os.makedirs(data, exist_ok=True)
    return EventStore.open(Settings(data=data))
