"""One rule, two engines, one answer: polars on the stream, ClickHouse on what is stored."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from clickhouse_connect.driver import Client
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from detectors.base import Batch
from detectors.sigma import Rule, RuleSet, SigmaDetector
from detectors.sigma.evidence import ends
from detectors.sigma.frame import Matcher
from detectors.sigma.sql import Table, hits
from detectors.sigma.sql_text import Sql, Writer
from detectors.sigma.sql_where import condition
from detectors.sigma.tree import Column, Node, Regex, columns
from monitor.events import Record, arrow_batch, rule_fields
from monitor.frames import to_frame
from monitor.settings import Settings, StoreSettings
from monitor.store.clickhouse import EventStore, placed
from tests.clickhouse_server import ClickHouse, clickhouse
from tests.detectors.sigma import sql_strategies as some
from tests.detectors.sigma import sqlite_oracle
from tests.detectors.sigma.sigma_rules import faults, rules

PROBE = Table(rule_fields(), "probe")
Event = dict[str, Any]
PLAIN: Event = {"event_id": "e", "event_type": "tool.executed", "agent_id": "a", "timestamp": some.START}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with clickhouse(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module", params=["embedded", pytest.param("server", marks=pytest.mark.server)])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventStore]:
    """The event store on chDB, and on a real ClickHouse server, with a table ``probe`` beside ``events``."""
    with pytest.MonkeyPatch.context() as patch:
        # opening a store points temporary files at its data; both come back afterwards
        patch.setattr(tempfile, "tempdir", tempfile.tempdir)
        patch.setenv("TMPDIR", os.environ.get("TMPDIR", tempfile.gettempdir()))
        given = Settings(data=tmp_path_factory.mktemp("store"))
        if request.param == "server":
            running: ClickHouse = request.getfixturevalue("server")
            address = StoreSettings(**running.settings(f"db_{uuid.uuid4().hex}"))
            given = given.model_copy(update={"store": address})
        opened = EventStore.open(given)
        opened.writer.command("CREATE TABLE probe AS events ENGINE = Memory")
        yield opened
        opened.close()


def keep(client: Client, events: Sequence[Event], name: str = "events") -> None:
    client.command(f"TRUNCATE TABLE {name}")
    client.insert_arrow(name, placed(table(events), 0))


def table(events: Sequence[Event]) -> pa.Table:
    return pa.Table.from_batches([arrow_batch([msgspec.convert(event, Record) for event in events])])


def on_the_stream(events: Sequence[Event], trees: Sequence[Node]) -> list[list[bool]]:
    keys = {column.name.removeprefix("attributes.") for tree in trees for column in columns(tree)
            if column.attribute}  # fmt: skip
    matches = Matcher(trees).match(to_frame(table(events), sorted(keys)))
    return [[row in matches.rows(place) for place in range(len(trees))] for row in range(len(events))]


def in_sql(client: Client, events: Sequence[Event], trees: Sequence[Node]) -> list[list[bool]]:
    keep(client, events, "probe")
    writer = Writer(PROBE)
    held = ", ".join(f"{condition(tree, writer)} AS held{place}" for place, tree in enumerate(trees))
    sql = writer.done(f"SELECT {held} FROM probe ORDER BY row")
    found = client.query(sql.text, dict(sql.parameters)).result_rows
    assert {value for row in found for value in row} <= {0, 1}
    return [list(map(bool, row)) for row in found]


@settings(max_examples=90, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(some.events, min_size=1, max_size=8), st.lists(some.trees, min_size=1, max_size=3))
def test_the_stream_and_sql_agree_on_every_tree(
    store: EventStore, events: list[Event], trees: list[Node]
) -> None:
    assert in_sql(store.writer, events, trees) == on_the_stream(events, trees)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.lists(some.patterns, min_size=4, max_size=12, unique=True),
    st.lists(some.searchable, min_size=5, max_size=20),
)
def test_the_stream_and_sql_agree_on_every_expression(
    store: EventStore, patterns: list[str], texts: list[str]
) -> None:
    events = [{**PLAIN, "target": text} for text in texts]
    trees = [Regex(Column("target", "string"), (pattern,)) for pattern in patterns]
    assert in_sql(store.writer, events, trees) == on_the_stream(events, trees)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(some.objects, min_size=3, max_size=10), st.sampled_from(["k", "k.a", "tool_args"]))
def test_the_stream_and_sql_read_the_same_under_nested_keys(
    store: EventStore, objects: list[str], home: str
) -> None:
    told = zip(objects, reversed(objects), strict=True)
    events = [
        {**PLAIN, "tool_args": one, "tool_name": other, "attributes": {"k": other, home: one}}
        for one, other in told
    ]
    frame = to_frame(table(events), [column.name.removeprefix("attributes.") for column in some.NESTED])
    expected = [frame.get_column(column.name).to_list() for column in some.NESTED]
    writer = Writer(PROBE)
    sql = writer.done(
        f"SELECT {', '.join(f'{writer.value(c)} AS v{n}' for n, c in enumerate(some.NESTED))} "
        "FROM probe ORDER BY row"
    )
    keep(store.writer, events, "probe")
    found = store.writer.query(sql.text, dict(sql.parameters)).result_rows
    assert [list(values) for values in zip(*found, strict=True)] == expected


def as_found(client: Client, rule_set: RuleSet, rule: Rule) -> list[tuple[Any, ...]]:
    def ask(sql: Sql) -> list[dict[str, Any]]:
        result = client.query(sql.text, dict(sql.parameters))
        return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]

    found = hits(rule, rule_set, Table(rule_fields()), ask, since=0, until=2**62)
    return [
        (one.row, one.timestamp, ends(one.event_ids), len(one.event_ids), one.group, one.tenant, one.replayed)
        for one in found
    ]


def as_judged(rule_set: RuleSet, events: Sequence[Event]) -> list[tuple[Any, ...]]:
    stored = table(events)
    return [
        (one.row, one.timestamp, one.event_ids, one.event_count, one.group, one.tenant, one.replayed)
        for one in SigmaDetector(rule_set).process(Batch(to_frame(stored, rule_set.attribute_keys)))
    ]


@settings(max_examples=45, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_a_correlation_finds_in_history_what_it_found_on_the_stream(store: EventStore, seed: int) -> None:
    text, events = some.story(seed)
    rule_set = rules(text)
    [rule] = [rule for rule in rule_set.rules if rule.correlation]
    keep(store.writer, events)
    assert as_found(store.writer, rule_set, rule) == as_judged(rule_set, events)


def test_the_stories_of_that_test_have_findings_and_silences() -> None:
    found: dict[str, list[int]] = {}
    for text, events in map(some.story, range(60)):
        [kind] = [rule.correlation.kind for rule in rules(text).rules if rule.correlation]
        found.setdefault(kind, []).append(len(as_judged(rules(text), events)))
    assert found.keys() == some.CONDITIONS.keys()
    for counts in found.values():
        assert sum(counts) >= 10
        assert 0 in counts


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(sqlite_oracle.events, min_size=1, max_size=8), sqlite_oracle.detections)
def test_an_independent_backend_agrees_with_both(
    store: EventStore, events: list[Event], detection: dict[str, Any]
) -> None:
    text = sqlite_oracle.rule(detection)
    assume(not faults(text))
    [rule] = rules(text).rules
    assert rule.tree is not None
    expected = [[held] for held in sqlite_oracle.matches(text, events)]
    assert on_the_stream(events, [rule.tree]) == expected
    assert in_sql(store.writer, events, [rule.tree]) == expected
