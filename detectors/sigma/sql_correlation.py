"""A correlation's statement: the hits of its rules that a complete window may hold.

It answers with every hit that any finding can name, and with few others: of counts, the hits
within a span that holds enough of them; of an ordered one, the hits that have a hit of every
other rule within the span. Leaving out the others changes no finding, since a window that is
complete keeps all its hits. Two kinds of hit meet more than their window: a further report of a
call, and one that comes out of order (of a count: later than the lateness allowed). A group that can
fire and has such hits is given whole.

What came too late to be judged on the stream is left out here, too. All window functions run over
growing frames, so the work grows with the hits and not with their square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from detectors.sigma.correlation import LATENESS
from detectors.sigma.relations import COUNTS
from detectors.sigma.rule import Choice, Correlation, Reference, Rule, RuleSet
from detectors.sigma.sql_text import NoSql, Writer
from detectors.sigma.sql_where import condition
from detectors.sigma.tree import Node

KINDS = (*COUNTS, "temporal_ordered")

_TENANT = "if(ifNull(tenant, '') = '', 'default', toString(assumeNotNull(tenant)))"
_GROUP = "PARTITION BY replayed, key"
_FORWARD = "PARTITION BY replayed, key ORDER BY at, segment, row ROWS UNBOUNDED PRECEDING"
_ARRIVAL = "PARTITION BY replayed, key ORDER BY segment, row ROWS UNBOUNDED PRECEDING"
_BACKWARD = "PARTITION BY replayed, key ORDER BY at DESC, segment DESC, row DESC ROWS UNBOUNDED PRECEDING"


def plain_bases(rule: Rule, rules: RuleSet) -> list[Node]:
    """The conditions of the rules that a correlation counts. Raises NoSql where one has none of its own."""
    assert rule.correlation is not None
    if rule.correlation.kind not in KINDS:
        raise NoSql(f"a correlation of type {rule.correlation.kind} is not written in SQL")
    trees = []
    for reference in rule.correlation.references:
        base = rules.get(reference.rule)
        if base is None or base.tree is None:
            raise NoSql(f"{reference.rule} is itself a correlation")
        if base.extended:
            raise NoSql(f"{reference.rule} depends on the order in which events came")
        trees.append(base.tree)
    return trees


def complete(spec: Correlation, trees: Sequence[Node], writer: Writer, bounds: str) -> tuple[str, str]:
    """The ``WITH`` of the statement, and its ``SELECT``: ``base`` (place of the rule), ``key`` (tenant,
    then the group), ``value``, ``at`` (time for windows, microseconds), ``hit_id`` and the event.
    """
    narrowed = _counted(spec) if spec.kind in COUNTS else _ordered(spec)
    every = _hits(spec, trees, writer, bounds)
    hits = (
        f"WITH every AS ({every}), "  # noqa: S608
        f"hits AS (SELECT *, max(at) OVER ({_ARRIVAL}) AS newest FROM every), {narrowed}"
    )
    wanted = (
        "SELECT event_id, hit_id, timestamp, micros, at, tenant, agent_id, session_id, event_type, "  # noqa: S608
        "tool_name, replayed, again, segment, row, base, key, value FROM narrowed "
        f"WHERE (near OR whole) AND newest - at <= {spec.span + LATENESS} ORDER BY segment, row, base"
    )
    return hits, wanted


def _hits(spec: Correlation, trees: Sequence[Node], writer: Writer, bounds: str) -> str:
    """A row for each event and each of its rules; for counts, only for the first of them."""
    conditions = [condition(tree, writer) for tree in trees]
    told = (
        f"tuple({place}, {key}, ifNull({value}, ''), {held} AND NOT has({key}, ''), isNotNull({value}))"
        for place, (held, key, value) in enumerate(
            zip(conditions, _keys(spec, writer), _values(spec, writer), strict=True)
        )
    )
    found = f"arrayFilter(b -> b.4 != 0, [{', '.join(told)}])"
    if spec.kind in COUNTS:
        found = f"arraySlice({found}, 1, 1)"
    if spec.kind == "value_count":
        found = f"arrayFilter(b -> b.5 != 0, {found})"
    repeat = writer.attribute(writer.table.repeat_of)
    return (
        f"SELECT event_id, ifNull({repeat}, event_id) AS hit_id, isNotNull({repeat}) AS again, "  # noqa: S608
        "timestamp, "
        "toUnixTimestamp64Micro(timestamp) AS micros, "
        "least(micros, toUnixTimestamp64Micro(ifNull(ingested_at, timestamp))) AS at, "
        f"tenant, agent_id, session_id, event_type, tool_name, {writer.replayed} AS replayed, "
        f"segment, row, arrayJoin({found}) AS joined, joined.1 AS base, joined.2 AS key, joined.3 AS value "
        f"FROM {writer.table.name} WHERE {bounds} AND ({' OR '.join(conditions)})"
    )


def _keys(spec: Correlation, writer: Writer) -> Iterator[str]:
    for reference in spec.references:
        parts = [f"ifNull({_text(choice, writer)}, '')" for choice in _grouping(reference)]
        yield f"[{', '.join((_TENANT, *parts))}]"


def _grouping(reference: Reference) -> Iterator[Choice]:
    for choice in reference.group:
        for column in choice:
            if column.kind in ("float", "timestamp"):
                raise NoSql(f"it groups by {column.name}, a {column.kind}, which SQL writes otherwise")
        yield choice


def _values(spec: Correlation, writer: Writer) -> Iterator[str]:
    for reference in spec.references:
        texts = [_text(choice, writer) for choice in reference.values]
        if len(texts) > 1:
            yield f"concat({', char(31), '.join(texts)})"
        else:
            yield texts[0] if texts else "NULL"


def _text(choice: Choice, writer: Writer) -> str:
    """The first of the columns that says something, as text."""
    texts = [f"toString({writer.value(column)})" for column in choice]
    return texts[0] if len(texts) == 1 else f"coalesce({', '.join(texts)})"


def _counted(spec: Correlation) -> str:
    """Hits within a span that ends with a hit before which, within the span, stand enough others."""
    threshold = int(spec.threshold)
    possible = f"count() OVER ({_GROUP}) >= {threshold}"
    if spec.kind == "value_count":
        possible = f"uniqExact(value) OVER ({_GROUP}) >= {threshold}"
    return (
        f"ends AS (SELECT *, {possible} AS possible, {_whole(spec)}, "  # noqa: S608
        f"if(at - lagInFrame(toNullable(at), {threshold - 1}) OVER ({_FORWARD}) <= {spec.span}, at, NULL) "
        "AS ending FROM hits), "
        f"narrowed AS (SELECT *, possible AND ifNull(min(ending) OVER ({_BACKWARD}) - at <= {spec.span}, 0) "
        "AS near FROM ends)"
    )


def _ordered(spec: Correlation) -> str:
    """Hits that have a hit of every rule within the span, before or after."""
    places = range(len(spec.references))
    possible = (f"countIf(base = {place}) OVER ({_GROUP}) > 0" for place in places)
    near = (
        f"(ifNull(at - max(if(base = {place}, at, NULL)) OVER ({_FORWARD}) <= {spec.span}, 0) OR "
        f"ifNull(min(if(base = {place}, at, NULL)) OVER ({_BACKWARD}) - at <= {spec.span}, 0))"
        for place in places
    )
    return (
        f"narrowed AS (SELECT *, {' AND '.join(possible)} AS possible, {_whole(spec)}, "  # noqa: S608
        f"{' AND '.join(near)} AS near FROM hits)"
    )


def _whole(spec: Correlation) -> str:
    """Whether the group is given whole: what such a hit meets depends on more than its window."""
    late = LATENESS if spec.kind == "event_count" else 0
    return f"possible AND max(again OR newest - at > {late}) OVER ({_GROUP}) AS whole"
