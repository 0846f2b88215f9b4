"""A rule over stored history says what the stream would have said."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from detectors.base import Batch
from detectors.sigma import SigmaDetector
from monitor.events import arrow_batch
from monitor.frames import to_frame
from monitor.hunting import Result, hunt
from monitor.store.clickhouse import EventStore, placed
from tests.builders import event
from tests.detectors.sigma.sigma_rules import correlation, detection, rules

START = datetime(2026, 3, 2, 22, 0, tzinfo=UTC)
SINCE, UNTIL = (int((START + timedelta(hours=hours)).timestamp() * 1e6) for hours in (-1, 40))

EVENTS = [
    event(
        "tool.executed",
        number * 600,
        agent_id=f"agent-{number % 3}",
        session_id=f"s{number % 7}",
        event_id=f"e{number}",
        tool_name=("read", "send", "pay")[number % 3 - number % 2],
        timestamp=START + timedelta(minutes=10 * number),
        ingested_at=START + timedelta(minutes=10 * number),
    )
    for number in range(200)
]

SINGLE = detection("{tool_name: pay}")
COUNT = detection("{tool_name: pay}", name="pay", level="") + correlation(
    "{type: event_count, rules: [pay], group-by: [session_id], timespan: 12h, condition: {gte: 2}}"
)
NEW = SINGLE.replace(
    "---\n", "watchkeeper: {first_seen: {fields: [session_id], group-by: [agent_id], after: 2h}}\n"
)


@pytest.fixture
def client(store: EventStore) -> Iterator[Any]:
    table = pa.table(arrow_batch(EVENTS))
    store.insert(placed(table, 1), "hunting")
    client = store.connect()
    yield client
    client.close()


def hunted(client: Any, text: str, **options: Any) -> Result:
    rule_set = rules(text)
    [rule] = [one for one in rule_set.rules if one.generate]
    return hunt(client, rule_set, rule, SINCE, UNTIL, **options)


@pytest.mark.parametrize(("text", "how"), [(SINGLE, "sql"), (COUNT, "sql"), (NEW, "stream")])
def test_a_hunt_finds_what_the_stream_finds(client: Any, text: str, how: str) -> None:
    rule_set = rules(text)
    frame = to_frame(arrow_batch(EVENTS), rule_set.attribute_keys)
    expected = [finding.event_ids for finding in SigmaDetector(rule_set).process(Batch(frame))]
    found = hunted(client, text)
    assert expected
    assert [hit.event_ids for hit in found.hits] == expected
    assert (found.how, found.findings) == (how, len(expected))
    assert sum(day.findings for day in found.days) == len(expected)
    assert 0 < found.alerts <= found.findings
    assert [day.day for day in found.days] == sorted(day.day for day in found.days)


def test_progress_goes_up_to_the_end(client: Any) -> None:
    for text in (SINGLE, COUNT, NEW):
        told: list[float] = []
        hunted(client, text, progress=told.append)
        assert told == sorted(told)
        assert told[-1] == 1


def test_another_tenants_events_are_not_seen(client: Any) -> None:
    for text in (SINGLE, NEW):
        assert hunted(client, text, tenant="rival").findings == 0
        assert hunted(client, text, tenant="default").findings


def test_a_dormant_rule_says_which_list_it_waits_for(client: Any) -> None:
    with pytest.raises(ValueError, match=r"lists\.marks"):
        hunted(client, detection("{tool_name|expand: '%marks%'}"))
