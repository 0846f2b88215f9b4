"""Rules as ClickHouse SQL: the second compiler, for history.

`frame` judges the stream, and this judges what is stored, with the same answer. One event's rule
is one statement. A correlation is two steps: the statement finds the hits of its rules and leaves
out those that no complete window can hold; `Query.fired` then takes the rest in the spool's order
through the stream's own `Correlator`, so that what fires, and when it fires again, is the same.

No value ever stands in the text: all are bound by the server (``{name:Type}``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from detectors.sigma.correlation import Correlator
from detectors.sigma.evidence import Verdict
from detectors.sigma.found import bounded, named
from detectors.sigma.rule import Rule, RuleSet
from detectors.sigma.sql_correlation import complete, plain_bases
from detectors.sigma.sql_text import NoSql, Sql, Table, Writer
from detectors.sigma.sql_where import condition, where
from detectors.sigma.windows import Hit

__all__ = ["Fired", "NoSql", "Query", "Sql", "Table", "compile_rule", "hits", "where"]


@dataclass(frozen=True)
class Fired:
    """What the stream would have found. ``timestamp`` is that of the event that completed it, in
    microseconds; ``segment`` and ``row`` say where it stands; ``event_ids`` are in time order.
    """

    rule_id: str
    timestamp: int
    event_ids: tuple[str, ...]
    group: Mapping[str, str | None]
    tenant: str
    agent_id: str
    session_id: str | None
    replayed: bool
    segment: int
    row: int


@dataclass(frozen=True)
class Query:
    """A rule over the stored events from ``since`` up to, not including, ``until``.

    Both are parameters of type Int64, microseconds, which `between` gives. ``matches`` has a row for
    each event at which the rule holds, in order of (timestamp, segment, row); for a correlation, a
    row for each hit that may be part of a finding, in order of (segment, row). ``count_by_day`` has
    ``day`` (UTC) and ``events``: those at which the rule, or a rule of the correlation, holds.
    """

    rule: Rule
    matches: Sql
    count_by_day: Sql

    def between(self, since: int, until: int) -> Query:
        """The same with its bounds, microseconds of event time."""
        return Query(
            self.rule,
            self.matches.given(since=since, until=until),
            self.count_by_day.given(since=since, until=until),
        )

    def fired(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Fired]:
        """What would have been found, from the rows of ``matches`` in their order."""
        spec = self.rule.correlation
        if spec is None:
            for row in rows:
                group = {name: row[name] for name in ("agent_id", "session_id")}
                yield _fired(self.rule, row, (row["event_id"],), group)
            return
        lanes = (Correlator(spec), Correlator(spec))
        for row in rows:
            lane = lanes[bool(row["replayed"])]
            key = bounded(tuple(row["key"]))
            repeats = {0} if row["again"] else frozenset[int]()
            found = lane.take([(0, key, _hit(row))], repeats)
            lane.settle()
            for _, hits in found:
                ids = Verdict(self.rule, self.rule, 0, hits).event_ids
                yield _fired(self.rule, row, ids, named(spec.group_by, key))


def _hit(row: Mapping[str, Any]) -> Hit:
    return Hit(row["at"], row["base"], row["hit_id"], "", None, row["value"], "declared")


def _fired(
    rule: Rule, row: Mapping[str, Any], ids: tuple[str, ...], group: Mapping[str, str | None]
) -> Fired:
    return Fired(
        rule_id=rule.id,
        timestamp=row["micros"],
        event_ids=ids,
        group=group,
        tenant=row["tenant"] or "default",
        agent_id=row["agent_id"],
        session_id=row["session_id"],
        replayed=bool(row["replayed"]),
        segment=row["segment"],
        row=row["row"],
    )


def compile_rule(
    rule: Rule, rules: RuleSet, table: Table, judged: str = "1", tenant: str | None = None
) -> Query:
    """The rule over ``table``. Raises NoSql where its form has no exact SQL.

    ``judged`` is SQL that leaves out later revisions of events; ``tenant`` holds the query to one.
    """
    writer = Writer(table)
    bounds = _bounds(writer, judged, tenant)
    if rule.missing:
        bounds = "0"
    if rule.correlation is not None:
        bases = plain_bases(rule, rules)
        hits, wanted = complete(rule.correlation, bases, writer, bounds)
        anything = " OR ".join(condition(tree, writer) for tree in bases)
        return Query(rule, writer.done(f"{hits} {wanted}"), _by_day(f"{bounds} AND ({anything})", writer))
    if rule.extended or rule.tree is None:
        raise NoSql(f"{_extension(rule)} depends on the order in which events came")
    matched = f"{bounds} AND {condition(rule.tree, writer)}"
    matches = (
        f"SELECT event_id, timestamp, {MICROS} AS micros, tenant, agent_id, session_id, event_type, "  # noqa: S608
        f"tool_name, {writer.replayed} AS replayed, segment, row "
        f"FROM {table.name} WHERE {matched} ORDER BY timestamp, segment, row"
    )
    return Query(rule, writer.done(matches), _by_day(matched, writer))


def hits(
    rule: Rule,
    rules: RuleSet,
    table: Table,
    ask: Callable[[Sql], Iterable[Mapping[str, Any]]],
    *,
    since: int,
    until: int,
    judged: str = "1",
    tenant: str | None = None,
) -> Iterator[Fired]:
    """What the rule would have found, had the stream begun at ``since`` and ended before ``until``.

    ``ask`` runs a statement and gives its rows by column name. For the rest see `compile_rule`,
    whose NoSql it raises before anything is asked.
    """
    query = compile_rule(rule, rules, table, judged, tenant).between(since, until)
    return query.fired(ask(query.matches))


MICROS = "toUnixTimestamp64Micro(timestamp)"


def _bounds(writer: Writer, judged: str, tenant: str | None) -> str:
    bounds = [
        f"timestamp >= fromUnixTimestamp64Micro({{{name}:Int64}}, 'UTC')".replace(">=", sign)
        for name, sign in (("since", ">="), ("until", "<"))
    ]
    bounds.append(f"({judged})")
    if tenant is not None:
        mine = f"tenant = {writer.bind('String', tenant)}"
        # as the stream groups them: no tenant is the default one
        bounds.append(f"({mine} OR tenant IS NULL OR tenant = '')" if tenant == "default" else mine)
    return " AND ".join(bounds)


def _by_day(matched: str, writer: Writer) -> Sql:
    return writer.done(
        f"SELECT toDate(timestamp) AS day, count() AS events FROM {writer.table.name} "  # noqa: S608
        f"WHERE {matched} GROUP BY day ORDER BY day"
    )


def _extension(rule: Rule) -> str:
    if rule.absences:
        return "not_preceded_by"
    return "not_followed_by" if rule.followers else "first_seen"
