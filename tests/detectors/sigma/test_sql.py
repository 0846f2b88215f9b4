"""Rules as SQL over the event store: the known faults of the published backend, bounds, refusals."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pytest

from detectors.base import Batch
from detectors.sigma import Rule, RuleSet, SigmaDetector, load_rules
from detectors.sigma.evidence import ends
from detectors.sigma.search import compiled
from detectors.sigma.sql import Fired, NoSql, Query, Table, compile_rule
from detectors.sigma.sql_regex import expression
from detectors.sigma.testing import test_events
from monitor.events import REPEAT_OF, REPLAYED, Record, arrow_batch, rule_fields
from monitor.frames import to_frame
from monitor.settings import Settings
from monitor.store.clickhouse import EventStore, placed
from monitor.store.history import JUDGED
from tests.builders import START, event
from tests.detectors.sigma.sigma_rules import correlation, detection, rules

EVENTS = Table(rule_fields())
PACK = Path(__file__).parents[3] / "rules"
FROM = int(START.timestamp()) * 1_000_000
MINUTE = 60 * 1_000_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventStore]:
    with pytest.MonkeyPatch.context() as patch:
        # opening a store points temporary files at its data; both come back afterwards
        patch.setattr(tempfile, "tempdir", tempfile.tempdir)
        patch.setenv("TMPDIR", os.environ.get("TMPDIR", tempfile.gettempdir()))
        opened = EventStore.open(Settings(data=tmp_path_factory.mktemp("store")))
        yield opened
        opened.close()


def keep(store: EventStore, *events: Any) -> None:
    store.writer.command("TRUNCATE TABLE events")
    store.writer.insert_arrow("events", placed(pa.Table.from_batches([arrow_batch(events)]), 7))


def query(text: str, **options: Any) -> Query:
    """The rule of the text that reports, as SQL over all times."""
    rule_set = rules(text)
    rule = next(rule for rule in rule_set.rules if rule.generate)
    return compile_rule(rule, rule_set, EVENTS, **options).between(0, 2**62)


def rows(store: EventStore, statement: Any) -> list[dict[str, Any]]:
    result = store.writer.query(statement.text, dict(statement.parameters))
    return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]


def matched(store: EventStore, text: str, *events: Any) -> list[int]:
    """Which of the events the rule matches: by SQL, after the stream has said the same."""
    keep(store, *events)
    found = [row["row"] for row in rows(store, query(text).matches)]
    assert sorted(found) == [finding.row for finding in streamed(rules(text), *events)]
    return sorted(found)


def fired(store: EventStore, text: str, *events: Any) -> list[Fired]:
    """What the rule finds: by SQL, after the stream has said the same."""
    keep(store, *events)
    asked = query(text)
    found = list(asked.fired(rows(store, asked.matches)))
    assert [(one.row, one.event_ids) for one in found] == [
        (finding.row, finding.event_ids) for finding in streamed(rules(text), *events)
    ]
    return found


def streamed(rule_set: RuleSet, *events: Any) -> Sequence[Any]:
    frame = to_frame(arrow_batch(events), rule_set.attribute_keys)
    return SigmaDetector(rule_set).process(Batch(frame))


DENY = detection("{policy_decision: deny}", name="deny", level="")
READ = detection("{tool_name: read}", number=2, name="read", level="")
SEND = detection("{tool_name: send}", number=3, name="send", level="")


def deny(at: float, **columns: Any) -> Any:
    return event("policy.checked", at=at, policy_decision="deny", **columns)


def call(tool: str, at: float, **columns: Any) -> Any:
    return event("tool.executed", at=at, tool_name=tool, **columns)


# The seven faults of the published ClickHouse backend (docs of the detection engine, DETECTION.md 1)


def test_an_in_list_does_not_escape_the_underscore(store: EventStore) -> None:
    text = detection("{tool_name: [read_file, list_dir]}")
    names = ["read_file", "readXfile", r"read\_file", "list_dir"]
    assert matched(store, text, *(call(name, at) for at, name in enumerate(names))) == [0, 3]


def test_equality_and_lists_compare_without_regard_to_case(store: EventStore) -> None:
    events = [call(name, at) for at, name in enumerate(["Read", "READ", "reads", "Ä", "ä"])]
    assert matched(store, detection("{tool_name: rEAD}"), *events) == [0, 1]
    assert matched(store, detection("{tool_name: [rEAD, ä]}"), *events) == [0, 1, 3, 4]
    assert matched(store, detection("{tool_name|cased: Read}"), *events) == [0]


def test_not_over_an_absent_field_keeps_the_row(store: EventStore) -> None:
    events = [event(at=0), event(at=1, target="evil.example"), event(at=2, target="good.example")]
    assert matched(store, detection("{target|contains: evil}", "not s"), *events) == [0, 2]
    assert matched(store, detection("{amount|gt: 5}", "not s"), *events) == [0, 1, 2]
    assert matched(store, detection("{currency: eur}", "not s"), *events) == [0, 1, 2]


def test_counts_mind_their_timespan(store: EventStore) -> None:
    for kind, condition in (("event_count", "gte: 3"), ("value_count", "field: target, gte: 3")):
        text = DENY + correlation(
            f"{{type: {kind}, rules: [deny], group-by: [session_id], timespan: 60s, "
            f"condition: {{{condition}}}}}"
        )
        slow = [deny(at * 40, target=f"t{at}") for at in range(6)]
        quick = [deny(400 + at * 30, target=f"t{at}") for at in range(3)]
        assert fired(store, text, *slow) == []
        [one] = fired(store, text, *slow, *quick)
        assert one.event_ids == tuple(event.event_id for event in quick)


def test_a_chain_is_found_late_in_a_long_group(store: EventStore) -> None:
    # the published backend measures the whole group's first to last
    text = (
        READ
        + SEND
        + correlation("{type: temporal_ordered, rules: [read, send], group-by: [session_id], timespan: 60s}")
    )
    events = [call("read", 0), call("read", 5000), call("send", 5010), call("read", 9000)]
    assert [one.row for one in fired(store, text, *events)] == [2]


def test_a_chain_minds_its_order(store: EventStore) -> None:
    text = (
        READ
        + SEND
        + correlation("{type: temporal_ordered, rules: [read, send], group-by: [session_id], timespan: 60s}")
    )
    assert fired(store, text, call("send", 0), call("read", 1)) == []
    assert [one.row for one in fired(store, text, call("send", 0), call("read", 1), call("send", 2))] == [2]


def test_an_unknown_field_is_no_match_and_no_error(store: EventStore) -> None:
    events = [event(at=0), event(at=1, attributes={"CommandLine": "rm -rf /"})]
    assert matched(store, detection("{CommandLine|contains: rm}"), *events) == [1]
    assert matched(store, detection("{NoSuchField: x}"), *events) == []


# What the stream does, history does


def test_no_value_of_a_rule_stands_in_the_statement() -> None:
    text = detection(
        """{tool_name: ["quote' OR 1=1 --"], tool_args|re: "secret'\\\\d+", """
        """"ke'y`|contains": "{p0:String}", amount: 7777}"""
    )
    statement = query(text, tenant="acme'").matches
    for hostile in ("quote'", "secret'", "ke'y", "7777", "acme'"):
        assert hostile not in statement.text
    assert "quote' or 1=1 --" in str(statement.parameters)


def test_every_letter_is_folded_alike(store: EventStore) -> None:
    points = [point for point in range(1, 0x110000) if not 0xD800 <= point <= 0xDFFF]
    letters = [chr(point) for point in points if chr(point).lower() != chr(point) or chr(point).isalpha()]
    lowered = pl.Series(letters).str.to_lowercase().to_list()
    result = store.writer.query(
        "SELECT arrayMap(letter -> lowerUTF8(letter), splitByChar('|', {letters:String}))",
        {"letters": "|".join(letters[:20_000])},
    )
    assert result.result_rows[0][0] == lowered[:20_000]


def test_a_sigma_is_a_sigma_wherever_it_stands(store: EventStore) -> None:
    events = [event(at=at, target=text) for at, text in enumerate(["ΟΔΟΣ", "οδος", "ΟΔΟΣΑ", "οδοσα"])]
    assert matched(store, detection("{target: οδοσ}"), *events) == [0, 1]
    assert matched(store, detection("{target|startswith: ΟΔΟΣ}"), *events) == [0, 1, 2, 3]
    assert matched(store, detection("{target|cased: οδος}"), *events) == [1]


@pytest.mark.parametrize(
    "pattern",
    [r"\d", r"\w", r"\s", r"[^\w\s]", r"[\W\d]", r"\bx", r"\p{Lu}", r"\pN", "[[:alpha:]]", "(?i)[k-s]", "."],
)
def test_classes_hold_the_same_characters(store: EventStore, pattern: str) -> None:
    points = [*range(0xD800), *range(0xE000, 0x110000, 3)]
    letters = [f"{chr(point)}x" if pattern == r"\bx" else chr(point) for point in points]
    sought = compiled(pattern)
    [[held]] = store.writer.query(
        "SELECT arrayMap(letter -> match(letter, {pattern:String}), splitByChar('\x01', {letters:String}))",
        {"pattern": expression(pattern), "letters": "\x01".join(letters[2:])},
    ).result_rows
    assert list(map(bool, held)) == [sought.search(letter) is not None for letter in letters[2:]]


def test_classes_and_word_boundaries_are_ascii(store: EventStore) -> None:
    words = ["a1", "é", "٣", "a\u00a0b", "über", "_"]
    events = [event(at=at, target=word) for at, word in enumerate(words)]
    for pattern, held in ((r"^\w+$", [0, 5]), (r"\d", [0]), (r"\s", []), (r"\bber", [4])):
        assert matched(store, detection(f"{{target|re: '{pattern}'}}"), *events) == held


@pytest.mark.parametrize(
    "pattern", ["xyé?z", "xyé*z", "xyé{0,1}z", r"xyz\Q\E?", "😀?", "xy(?:é)?z", "x|yzé?"]
)
def test_clickhouse_skips_no_text_that_holds_too_little(store: EventStore, pattern: str) -> None:
    events = [event(at=at, target=text) for at, text in enumerate(["xyz", "xyéz", "xy", "yz", ""])]
    expected = [at for at, one in enumerate(events) if compiled(pattern).search(one.target)]
    assert matched(store, detection(f"{{target|re: '{pattern}'}}"), *events) == expected


def test_an_expression_too_large_for_clickhouse_is_refused() -> None:
    large = r"\pL{1,250}" * 5
    assert compiled(large)
    with pytest.raises(NoSql, match="streamed through the evaluator"):
        expression(large)


def test_many_literals_are_one_search(store: EventStore) -> None:
    names = ", ".join(f"h{number}.example" for number in range(600))
    events = [event(at=0, target="https://H599.example/x"), event(at=1, target="https://h600.example")]
    assert matched(store, detection(f"{{target|contains: [{names}]}}"), *events) == [0]


def test_unmapped_records_match_no_rule(store: EventStore) -> None:
    events = [event("telemetry.unmapped", at=0, target="x"), event(at=1, target="x")]
    assert matched(store, detection("{target: x}"), *events) == [1]
    assert matched(store, detection("{target: y}", "not s"), *events) == [1]


def test_a_derived_field_is_joined_from_its_columns(store: EventStore) -> None:
    events = [call("Mail", 0, agent_id="bot"), call("pay", 1, agent_id="bot"), event(at=2, agent_id="bot")]
    assert matched(store, detection("{agent_tool: [bot/mail, bot/x*]}"), *events) == [0]
    assert matched(store, detection("{agent_tool|exists: true}", "not s"), *events) == [2]


def test_a_key_with_dots_is_sought_in_the_nearest_object(store: EventStore) -> None:
    told = [
        {"k.a.b": "x", "k.a": '{"b": "y"}', "k": '{"a": {"b": "z"}}'},
        {"k.a": '{"b": "x"}', "k": '{"a": {"b": "y"}}'},
        {"k": ' {"a": {"b": "y", "b": "x"}}'},
        {"k.a": '{"b": null}', "k": '{"a": {"b": "x"}}'},
        {"k": '{"a": "{\\"b\\": \\"x\\"}"}'},
        {"k": '{"a": [{"b": "x"}]}'},
        {"k": '{"a": {"b": "x"}'},
    ]
    events = [event(at=at, attributes=attributes) for at, attributes in enumerate(told)]
    assert matched(store, detection("{k.a.b: x}"), *events) == [0, 1, 2, 3]
    assert matched(store, detection("{k.a.b: null}"), *events) == [4, 5, 6]


def test_what_stands_under_a_key_is_read_as_it_was_written(store: EventStore) -> None:
    values = ["1.50", '"1.50"', "1.5", '[1.50, "b,"]', '{"c":  1e3}', r'"\u00c4"']
    events = [event(at=at, tool_args=f'{{"n": {value}, "m": 1}}') for at, value in enumerate(values)]
    assert matched(store, detection("{tool_args.n: '1.50'}"), *events) == [0, 1, 3]
    assert matched(store, detection("{tool_args.n|gt: 1}"), *events) == [0, 1, 2, 3]
    assert matched(store, detection("{tool_args.n: ['b,', '{\"c\":  1e3}', ä]}"), *events) == [3, 4, 5]


def test_a_dot_takes_no_end_of_line_unless_told(store: EventStore) -> None:
    events = [event(at=0, target="a\nb"), event(at=1, target="a b")]
    assert matched(store, detection("{target|re: a.b}"), *events) == [1]
    assert matched(store, detection("{target|re|s: a.b}"), *events) == [0, 1]
    assert matched(store, detection("{target: 'a*b'}"), *events) == [0, 1]


def test_a_keyword_is_found_in_any_text(store: EventStore) -> None:
    events = [
        event(at=0, tool_args="say Xyzzy"),
        event(at=1, data_accessed=["a", "xyzzy.txt"]),
        event(at=2, attributes={"a": "1", "b": "my xyzzy"}),
        event(at=3, attributes={"xyzzy": "1"}),
    ]
    assert matched(store, detection("[xyzzy]"), *events) == [0, 1, 2]
    assert matched(store, detection("[xyzzy]", "not s"), *events) == [3]


# Bounds and statements


def test_the_bounds_of_time_take_the_first_moment_and_leave_the_last(store: EventStore) -> None:
    keep(store, *(event(at=at * 60) for at in range(4)))
    statement = query(detection("{event_type: tool.requested}")).between(FROM + MINUTE, FROM + 3 * MINUTE)
    assert [row["row"] for row in rows(store, statement.matches)] == [1, 2]
    assert rows(store, statement.count_by_day) == [{"day": date(2026, 3, 2), "events": 2}]


def test_matches_come_in_order_of_event_time_and_say_where_they_stand(store: EventStore) -> None:
    keep(store, event(at=9), event(at=1), event(at=1, attributes={REPLAYED: "r"}))
    asked = query(detection("{event_type: tool.requested}"))
    found = rows(store, asked.matches)
    assert [(row["segment"], row["row"], bool(row["replayed"])) for row in found] == [
        (7, 1, False),
        (7, 2, True),
        (7, 0, False),
    ]
    assert next(asked.fired(found)) == Fired(
        rule_id=asked.rule.id,
        timestamp=FROM + 1_000_000,
        event_ids=("s1-tool.requested-1",),
        group={"agent_id": "invoice-agent", "session_id": "s1"},
        tenant="default",
        agent_id="invoice-agent",
        session_id="s1",
        replayed=False,
        segment=7,
        row=1,
    )


def test_a_query_may_be_held_to_a_tenant(store: EventStore) -> None:
    keep(store, *(event(at=at, tenant=tenant) for at, tenant in enumerate(["acme", "default", None, ""])))
    text = detection("{event_type: tool.requested}")
    assert [row["row"] for row in rows(store, query(text, tenant="acme").matches)] == [0]
    assert [row["row"] for row in rows(store, query(text, tenant="default").matches)] == [1, 2, 3]


def test_revisions_are_left_out_when_the_caller_says_so(store: EventStore) -> None:
    keep(store, event(at=0), event(at=1, revision=1))
    text = detection("{event_type: tool.requested}")
    assert [row["row"] for row in rows(store, query(text, judged=JUDGED).matches)] == [0]
    assert len(rows(store, query(text).matches)) == 2


def test_days_of_a_correlation_count_what_its_rules_matched(store: EventStore) -> None:
    text = DENY + correlation(
        "{type: event_count, rules: [deny], group-by: [session_id], timespan: 60s, condition: {gte: 2}}"
    )
    keep(store, deny(0), deny(1), deny(86_400), event(at=5))
    found = rows(store, query(text).count_by_day)
    assert [(row["day"].day, row["events"]) for row in found] == [(2, 2), (3, 1)]


def test_hits_that_no_window_completes_are_not_sent(store: EventStore) -> None:
    text = DENY + correlation(
        "{type: event_count, rules: [deny], group-by: [session_id], timespan: 60s, condition: {gte: 3}}"
    )
    keep(store, *(deny(at) for at in (0, 100, 110, 120, 300, 900)))
    assert [row["row"] for row in rows(store, query(text).matches)] == [1, 2, 3]


def test_the_marks_of_the_daemon_are_those_of_the_schema() -> None:
    assert (EVENTS.replayed, EVENTS.repeat_of) == (REPLAYED, REPEAT_OF)


# What has no SQL says so

REFUSED = {
    "type temporal ": READ
    + SEND
    + correlation("{type: temporal, rules: [read, send], group-by: [session_id], timespan: 60s}"),
    "type value_sum ": READ
    + correlation(
        "{type: value_sum, rules: [read], group-by: [session_id], timespan: 60s, "
        "condition: {field: amount, gte: 9}}"
    ),
    "itself a correlation": DENY
    + correlation(
        "{type: event_count, rules: [deny], group-by: [agent_id], timespan: 60s, condition: {gte: 2}}", 100
    ).replace("level: high", "name: inner")
    + correlation(
        "{type: event_count, rules: [inner], group-by: [agent_id], timespan: 1h, condition: {gte: 2}}", 101
    ),
    "groups by amount": READ
    + correlation(
        "{type: event_count, rules: [read], group-by: [amount], timespan: 60s, condition: {gte: 2}}"
    ),
    "not_preceded_by": DENY
    + detection("{tool_name: pay}", number=9).replace(
        "---\n",
        "watchkeeper:\n  not_preceded_by: {rule: deny, timespan: 1h, group-by: [session_id]}\n---\n",
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_form_without_sql_says_so_and_what_happens_instead(reason: str) -> None:
    with pytest.raises(NoSql) as refused:
        query(REFUSED[reason])
    assert str(refused.value).startswith("this rule's form has no SQL: ")
    assert reason in str(refused.value)
    assert str(refused.value).endswith("; the stored events will be streamed through the evaluator instead")


def test_every_rule_that_ships_judges_the_events_of_all_rule_files_alike_in_history(
    store: EventStore,
) -> None:
    rule_set = load_rules([PACK], rule_fields())
    tests = [test for rule in rule_set.rules for test in rule.tests]
    # a tenant for each test, so that none completes what another began
    events = [
        msgspec.convert({**one, "tenant": f"t{number}"}, Record)
        for number, test in enumerate(tests)
        for one in test_events(test["events"], rule_set)
    ]
    keep(store, *events)
    judged = streamed(rule_set, *events)
    asked = [(rule, in_history(rule, rule_set)) for rule in rule_set.rules if rule.generate]
    refused = [rule for rule, query in asked if query is None]
    assert all(rule.extended or rule.correlation is not None for rule in refused)
    assert len(refused) < len(asked) / 2
    for rule, query in asked:
        if query is not None:
            found = sorted((one.row, ends(one.event_ids)) for one in query.fired(rows(store, query.matches)))
            expected = [(one.row, one.event_ids) for one in judged if one.rule_id == rule.id]
            assert found == expected, rule.title
            assert bool(rows(store, query.count_by_day)) or not expected


def in_history(rule: Rule, rule_set: RuleSet) -> Query | None:
    with contextlib.suppress(NoSql):
        return compile_rule(rule, rule_set, EVENTS, judged=JUDGED).between(0, 2**62)
    return None
