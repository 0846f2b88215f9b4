"""A rule over stored history: the back-test before it may page or stop anybody.

A rule that has SQL is asked of ClickHouse; of any other the stored events are streamed through the
evaluator, in the order in which they came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from detectors.base import Batch
from detectors.sigma import Rule, RuleSet, SigmaDetector
from detectors.sigma.sql import Fired, NoSql, Query, Sql, Table, compile_rule
from monitor.alerting.merging import dedup_key
from monitor.events import ARROW_SCHEMA, rule_fields
from monitor.frames import to_frame
from monitor.moments import rfc3339
from monitor.store.fault import StoreError, reason
from monitor.store.history import JUDGED

DAY = 86_400_000_000
SHOWN = 200
"""Findings that are told one by one."""

PAGE = 20_000
"""Stored events that are streamed at once."""

Progress = Callable[[float], None]
"""Hears how far the hunt is, from 0 to 1."""


class Hit(msgspec.Struct, frozen=True):
    """What would have been found. ``timestamp`` is RFC 3339, UTC."""

    timestamp: str
    tenant: str
    agent_id: str
    session_id: str | None
    group: Mapping[str, str | None]
    event_ids: tuple[str, ...]


class Day(msgspec.Struct, frozen=True):
    """One day, UTC: events that the rule, or a rule of its correlation, matched (None where only
    findings are known), findings, and alerts that would have been opened.
    """

    day: str
    events: int | None
    findings: int
    alerts: int


class Result(msgspec.Struct, frozen=True):
    """What a hunt has found. ``how`` is sql or stream; ``why`` says why there was no SQL."""

    rule_id: str
    title: str
    level: str
    since: str
    until: str
    how: str
    why: str | None
    findings: int
    alerts: int
    agents: int
    days: list[Day]
    hits: list[Hit]


@dataclass
class Tally:
    """Counts findings as they come; the first of them are kept."""

    findings: Counter[str] = field(default_factory=Counter)
    alerts: Counter[str] = field(default_factory=Counter)
    hits: list[Hit] = field(default_factory=list)
    _stories: set[str] = field(default_factory=set)
    _agents: set[tuple[str, str]] = field(default_factory=set)

    @property
    def agents(self) -> int:
        """Agents that something was found on."""
        return len(self._agents)

    def take(self, hit: Hit, story: str) -> None:
        """One finding; findings of one ``story`` are one alert."""
        day = hit.timestamp[:10]
        self.findings[day] += 1
        if story not in self._stories:
            self._stories.add(story)
            self.alerts[day] += 1
        self._agents.add((hit.tenant, hit.agent_id))
        if len(self.hits) < SHOWN:
            self.hits.append(hit)


def hunt(
    client: Client,
    rules: RuleSet,
    rule: Rule,
    since: int,
    until: int,
    tenant: str | None = None,
    progress: Progress = lambda _: None,
) -> Result:
    """What ``rule`` of ``rules`` would have found from ``since`` up to ``until`` (microseconds).

    Raises ValueError for a rule that waits for a list, StoreError where the store fails.
    """
    if rule.missing:
        raise ValueError(f"{rule.title} waits for a list: set lists.{rule.missing[0]}")
    tally, events, why = Tally(), None, None
    try:
        query = compile_rule(rule, rules, Table(rule_fields()), JUDGED, tenant)
    except NoSql as reason_why:
        why = str(reason_why)
        _stream(client, rules.alone(rule), rule, since, until, tenant, tally, progress)
    else:
        events = _ask(client, query, since, until, tally, progress)
    return Result(
        rule_id=rule.id,
        title=rule.title,
        level=rule.level,
        since=rfc3339(since),
        until=rfc3339(until),
        how="sql" if why is None else "stream",
        why=why,
        findings=tally.findings.total(),
        alerts=tally.alerts.total(),
        agents=tally.agents,
        days=list(_days(tally, events)),
        hits=tally.hits,
    )


def _ask(
    client: Client, query: Query, since: int, until: int, tally: Tally, progress: Progress
) -> dict[str, int]:
    """By SQL, day by day where a day can be judged alone; the events matched by day."""
    days = list(_slices(*_extent(client, since, until)))
    alone = query.rule.correlation is None
    events: dict[str, int] = {}
    for number, (start, end) in enumerate(days):
        part = query.between(start, end)
        events |= {str(row["day"]): int(row["events"]) for row in _rows(client, part.count_by_day)}
        if alone:
            _take(query.rule, part.fired(_rows(client, part.matches)), tally)
        progress((number + 1) / len(days) * (1 if alone else 0.5))
    if not alone:
        whole = query.between(since, until)
        _take(query.rule, whole.fired(_rows(client, whole.matches)), tally)
        progress(1)
    return events


def _extent(client: Client, since: int, until: int) -> tuple[int, int]:
    """The bounds, drawn in to where anything is stored."""
    sql = (
        "SELECT count() AS events, toUnixTimestamp64Micro(min(timestamp)) AS first, "
        "toUnixTimestamp64Micro(max(timestamp)) AS last FROM events "
        "WHERE timestamp >= fromUnixTimestamp64Micro({since:Int64}, 'UTC') "
        "AND timestamp < fromUnixTimestamp64Micro({until:Int64}, 'UTC')"
    )
    [stored] = list(_rows(client, Sql(sql, {"since": since, "until": until})))
    return (stored["first"], stored["last"] + 1) if stored["events"] else (until, until)


def _take(rule: Rule, found: Iterator[Fired], tally: Tally) -> None:
    for one in found:
        about = one.session_id or sorted(one.group.items())
        story = f"{one.tenant} {one.agent_id} {about} {one.replayed}"
        hit = Hit(rfc3339(one.timestamp), one.tenant, one.agent_id, one.session_id, one.group, one.event_ids)
        tally.take(hit, story)


def _stream(
    client: Client,
    rules: RuleSet,
    rule: Rule,
    since: int,
    until: int,
    tenant: str | None,
    tally: Tally,
    progress: Progress,
) -> None:
    """Through the evaluator, page by page in the spool's order; silence counts as far as ``until``."""
    bounds = (
        f"timestamp >= fromUnixTimestamp64Micro({{since:Int64}}, 'UTC') AND {JUDGED} "
        "AND timestamp < fromUnixTimestamp64Micro({until:Int64}, 'UTC') "
        "AND ({tenant:Nullable(String)} IS NULL OR tenant = {tenant:Nullable(String)})"
    )
    asked: dict[str, Any] = {"since": since, "until": until, "tenant": tenant}
    counted = _rows(client, Sql(f"SELECT count() AS events FROM events WHERE {bounds}", asked))  # noqa: S608
    total = sum(int(row["events"]) for row in counted)
    detector = SigmaDetector(rules)
    done, place = 0, (0, -1)
    while True:
        table = _page(client, bounds, {**asked, "segment": place[0], "place": place[1]})
        if not table.num_rows:
            break
        place = (table["segment"][-1].as_py(), table["row"][-1].as_py())
        frame = to_frame(table.select(ARROW_SCHEMA.names).cast(ARROW_SCHEMA), rules.attribute_keys)
        _tell(rule, detector.process(Batch(frame)), tally)
        done += table.num_rows
        progress(min(done / max(total, 1), 1))
    _tell(rule, detector.tick(until), tally)


def _tell(rule: Rule, found: list[Any], tally: Tally) -> None:
    for one in found:
        if one.rule_id == rule.id:
            hit = Hit(
                rfc3339(one.timestamp), one.tenant, one.agent_id, one.session_id, one.group, one.event_ids
            )
            tally.take(hit, dedup_key(one))


def _page(client: Client, bounds: str, asked: dict[str, Any]) -> pa.Table:
    names = ", ".join([*ARROW_SCHEMA.names, "segment", "row"])
    sql = (
        f"SELECT {names} FROM events WHERE {bounds} "  # noqa: S608
        "AND (segment, row) > ({segment:UInt64}, {place:Int64}) "
        f"ORDER BY segment, row LIMIT {PAGE}"
    )
    try:
        return client.query_arrow(sql, parameters=asked, use_strings=True)
    except ClickHouseError as error:
        raise StoreError(reason(error)) from None


def _rows(client: Client, sql: Sql) -> Iterator[dict[str, Any]]:
    """Row by row: a rule may match all that is stored."""
    try:
        with client.query_rows_stream(sql.text, parameters=dict(sql.parameters)) as rows:
            names = rows.source.column_names
            for row in rows:
                yield dict(zip(names, row, strict=True))
    except ClickHouseError as error:
        raise StoreError(reason(error)) from None


def _slices(since: int, until: int) -> Iterator[tuple[int, int]]:
    """The days, UTC, as far as they lie within the bounds."""
    start = since
    while start < until:
        end = min(until, (start // DAY + 1) * DAY)
        yield start, end
        start = end


def _days(tally: Tally, events: dict[str, int] | None) -> Iterator[Day]:
    for day in sorted({*tally.findings, *(events or {})}):
        matched = None if events is None else events.get(day, 0)
        yield Day(day, matched, tally.findings[day], tally.alerts[day])
