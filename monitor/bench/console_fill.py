"""A history for the console's benchmark: events in the store, and alerts through the real desk.

A process of its own: ClickHouse opens a folder for one process, and never again in one that has closed it.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from detectors.base import LEVELS, Finding, stable_id
from detectors.sigma import load_rules
from detectors.sigma.rule import Rule
from monitor.alerting.alerts import AlertDesk
from monitor.alerting.words import VERDICTS
from monitor.events import rule_fields
from monitor.settings import Settings, load, shipped_rules
from monitor.store.clickhouse import EventStore
from monitor.store.migrate import migrate_state
from monitor.store.state import State, now

AGENTS = 60
SESSION_EVENTS = 40
DAYS = 30
DAY = 86_400_000_000
BLOCK = 250_000
BATCH = 500
JUDGED_SHARE = 0.2

STEPS = ("task.created", "model.invoked", "tool.requested", "policy.checked", "tool.executed")

SQL = f"""
WITH intDiv(number, {SESSION_EVENTS}) AS session, number % {SESSION_EVENTS} AS place,
  intDiv(number, 4) AS call,
  {list(STEPS)}[if(place = 0, 1, 2 + number % 4)] AS kind,
  kind IN ('tool.requested', 'policy.checked', 'tool.executed') AS of_tool,
  fromUnixTimestamp64Micro(
    toInt64({{start:Int64}} + session * {{stride:Int64}} + place * 700000), 'UTC') AS at
SELECT concat('b', toString(number)) AS event_id, kind AS event_type, at AS timestamp, at AS ingested_at,
  'default' AS tenant, 'production' AS environment, 'bound' AS identity,
  concat('agent-', leftPad(toString(session % {AGENTS}), 2, '0')) AS agent_id,
  concat('run-', toString(session)) AS session_id,
  if(kind = 'model.invoked', 'large-2026-02', NULL) AS model_id,
  if(kind = 'model.invoked', toInt64(40 + number % 90), NULL) AS output_tokens,
  if(of_tool, concat('tool_', toString(call % 17)), NULL) AS tool_name,
  if(of_tool, concat('c', toString(call)), NULL) AS tool_call_id,
  if(kind = 'tool.requested', concat('{{"query": "invoice ', toString(number % 9973), '"}}'), NULL)
    AS tool_args,
  if(kind = 'policy.checked', if(number % 61 = 0, 'deny', 'allow'), NULL) AS policy_decision,
  if(kind = 'tool.executed', if(number % 37 = 0, 'failure', 'success'), NULL) AS outcome,
  0 AS segment, number AS row
FROM numbers({{first:UInt64}}, {{count:UInt64}})
"""  # noqa: S608 - constants of this module
COLUMNS = re.findall(r" AS (\w+)", SQL[SQL.index("SELECT") :])


def fill(data: Path, alerts: int, events: int) -> None:
    """Thirty days that end now. Tells how far it is as lines of JSON on stdout."""
    settings = load(data=data)
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    start = now() - DAYS * DAY
    stride = DAYS * DAY // max(1, events // SESSION_EVENTS)
    store = EventStore.open(settings)
    for first in range(0, events, BLOCK):
        count = min(BLOCK, events - first)
        asked = {"start": start, "stride": stride, "first": first, "count": count}
        store.writer.command(f"INSERT INTO events ({', '.join(COLUMNS)}) {SQL}", parameters=asked)
        _tell("events", first + count, events)
    store.close()
    migrate_state(settings.state_file)
    state = State(settings.state_file)
    _alerts(state, settings, alerts, events // SESSION_EVENTS, start, stride)
    state.close()


def _alerts(state: State, settings: Settings, count: int, sessions: int, start: int, stride: int) -> None:
    rules = load_rules([shipped_rules()], rule_fields()).rules
    desk = AlertDesk(state, {rule.id: rule for rule in rules}, settings)
    chosen = random.Random(7)  # noqa: S311 - the same history for ever
    found = _findings([rule for rule in rules if rule.generate], count, max(1, sessions), start, stride)
    for first in range(0, count, BATCH):
        with state.write() as session:
            filed = desk.file(session, [next(found) for _ in range(min(BATCH, count - first))])
            for alert in filed:
                alert.created_at = alert.last_event_at
            for alert in chosen.sample(filed, int(JUDGED_SHARE * len(filed))):
                verdict = chosen.choice([*VERDICTS])
                desk.change(
                    session, alert.id, "bench", status="closed", verdict=verdict, reason="seen before"
                )
        _tell("alerts", min(first + BATCH, count), count)


def _findings(rules: list[Rule], count: int, sessions: int, start: int, stride: int) -> Iterator[Finding]:
    for number in range(count):
        session = number * sessions // count
        rule = rules[number * 7 % len(rules)]
        event = session * SESSION_EVENTS + 3
        yield Finding(
            finding_id=stable_id("f", "bench", number),
            detector="sigma",
            rule_id=rule.id,
            rule_version=rule.version,
            title=rule.title,
            reason=f"{rule.title}: {3 + number % 9} in 10 min; usual is {1 + number % 3}",
            level=LEVELS[number * 11 % len(LEVELS)],
            tenant="default",
            environment="production",
            agent_id=f"agent-{session % AGENTS:02d}",
            session_id=f"run-{session}",
            identity="bound",
            timestamp=start + session * stride + 2_100_000,
            event_ids=(f"b{event}", f"b{event + 1}"),
            event_count=2,
            evidence={"matched": {"policy_decision": "deny"}, "count": 3 + number % 9, "threshold": 3},
        )


def _tell(what: str, done: int, of: int) -> None:
    print(json.dumps([what, done, of]), flush=True)


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
