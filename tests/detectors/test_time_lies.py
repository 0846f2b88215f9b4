"""What a sender says about time moves nothing of anybody else, and no clock beyond the present."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from detectors.base import Batch, Finding
from detectors.policy_blocks import PolicyBlocks
from detectors.sessions import QUIET
from detectors.sigma import SigmaDetector, load_rules
from detectors.sigma.correlation import LATENESS
from detectors.tool_sequence import ToolSequence
from monitor.events import rule_fields
from monitor.sources import gate
from tests.builders import START, event, frame

LIES = {
    "year 1901": datetime(1901, 1, 1, tzinfo=UTC),
    "year 2298": datetime(2298, 12, 31, tzinfo=UTC),
    "a day ahead": START + timedelta(days=1),
    "four minutes ahead": START + timedelta(minutes=4),
    "the epoch": datetime(1970, 1, 1, tzinfo=UTC),
}

RULE = """
title: many denials
id: 11111111-1111-4111-8111-111111111111
status: test
correlation: {type: event_count, rules: [deny], group-by: [agent_id], timespan: 60s, condition: {gte: 3}}
level: high
---
title: deny
name: deny
id: 22222222-2222-4222-8222-222222222222
status: test
logsource: {product: ai_agent}
detection: {denied: {policy_decision: deny}, condition: denied}
---
title: read then sent
id: 33333333-3333-4333-8333-333333333333
status: test
correlation: {type: temporal_ordered, rules: [read, send], group-by: [agent_id], timespan: 60s}
level: high
---
title: read
name: read
id: 44444444-4444-4444-8444-444444444444
status: test
logsource: {product: ai_agent}
detection: {it: {tool_name: read}, condition: it}
---
title: send
name: send
id: 55555555-5555-4555-8555-555555555555
status: test
logsource: {product: ai_agent}
detection: {it: {tool_name: send}, condition: it}
"""


@pytest.fixture
def sigma(tmp_path: Any) -> SigmaDetector:
    (tmp_path / "rules.yml").write_text(RULE)
    return SigmaDetector(load_rules([tmp_path], rule_fields()))


def live(kind: str, arrived: float, at: float | datetime | None = None, **columns: Any) -> Any:
    """An event that arrived ``arrived`` seconds after START and says it happened ``at``."""
    moment = at if isinstance(at, datetime) else START + timedelta(seconds=arrived if at is None else at)
    columns.setdefault("event_id", f"{columns.get('agent_id')}-{kind}-{arrived:g}-{moment:%Y%m%d%H%M%S%f}")
    return event(kind, arrived, **columns, timestamp=moment, ingested_at=START + timedelta(seconds=arrived))


def deny(arrived: float, at: float | datetime | None = None, **columns: Any) -> Any:
    return live("policy.checked", arrived, at, policy_decision="deny", **columns)


def run(detector: Any, events: Sequence[Any]) -> list[Finding]:
    return [finding for one in events for finding in detector.process(Batch(frame(one)))]


def liars(moment: datetime, count: int, **columns: Any) -> list[Any]:
    return [deny(1 + n / 100, moment, event_id=f"lie-{n}", **columns) for n in range(count)]


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_liar_neither_opens_nor_closes_the_window_of_another_agent(
    sigma: SigmaDetector, lie: datetime
) -> None:
    honest = [deny(0, agent_id="honest"), deny(2, agent_id="honest"), deny(4, agent_id="honest")]
    told = run(sigma, [honest[0], *liars(lie, 2, agent_id="liar"), *honest[1:]])
    assert [finding.agent_id for finding in told] == ["honest"]


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_lie_in_the_agents_own_name_does_not_hide_what_follows(sigma: SigmaDetector, lie: datetime) -> None:
    """A completed sequence uses up what came before it, but never what is still to come."""
    first = live("tool.executed", 0, agent_id="a", tool_name="read")
    lied = live("tool.executed", 1, lie, agent_id="a", tool_name="send")
    again = [
        live("tool.executed", 70, agent_id="a", tool_name="read"),
        live("tool.executed", 71, agent_id="a", tool_name="send"),
    ]
    told = run(sigma, [first, lied, *again])
    assert told[-1].event_ids == tuple(one.event_id for one in again)


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_denial_cannot_hide_from_a_count_by_a_date_in_the_future(
    sigma: SigmaDetector, lie: datetime
) -> None:
    told = run(sigma, [deny(0, agent_id="a"), *liars(lie, 2, agent_id="a")])
    assert len(told) == (1 if lie > START else 0)


def test_events_out_of_order_within_the_lateness_are_judged_in_their_windows(sigma: SigmaDetector) -> None:
    minutes = LATENESS / 1e6
    told = run(sigma, [deny(minutes, at, agent_id="a") for at in (minutes, 2, 30, 1)])
    assert [finding.event_count for finding in told] == [3]


def test_equal_timestamps_are_judged_in_the_order_of_arrival(sigma: SigmaDetector) -> None:
    read, send = (
        live("tool.executed", at, 0, agent_id="a", tool_name=tool) for at, tool in ((1, "read"), (2, "send"))
    )
    assert len(run(sigma, [read, send])) == 1


@pytest.mark.parametrize("detector", [PolicyBlocks, ToolSequence])
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_lie_ends_no_session_of_another_and_moves_no_clock(detector: Any, lie: datetime) -> None:
    learner = detector()
    run(learner, [live("tool.executed", 0, agent_id="honest", session_id="s1", tool_name="read")])
    run(learner, [live("tool.executed", 1, lie, agent_id="liar", session_id="x", tool_name="read")])
    assert len(learner.table.find("default", "honest", "ss1")) == 1
    (lane,) = learner.table.lanes.values()
    assert lane.clock == round((START.timestamp() + 1) * 1e6)


def test_a_source_hours_behind_keeps_its_session_beside_one_that_is_on_time() -> None:
    learner = PolicyBlocks()
    late = [live("tool.executed", n * 60, n * 60 - 7200, agent_id="late", session_id="s1") for n in range(3)]
    timely = [live("tool.executed", n * 60 + 30, agent_id="timely", session_id="s2") for n in range(3)]
    run(learner, [one for pair in zip(late, timely, strict=True) for one in pair])
    assert len(learner.table.find("default", "late", "ss1")) == 1
    run(learner, [live("tool.executed", 240 + QUIET / 1e6, agent_id="timely", session_id="s3")])
    assert learner.table.find("default", "late", "ss1") == []


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_lie_does_not_change_who_gives_way(lie: datetime) -> None:
    learner = PolicyBlocks(max_live=2)
    moments = [None, lie, None]
    run(
        learner,
        [
            live("tool.executed", n, moment, agent_id="a", session_id=f"s{n}")
            for n, moment in enumerate(moments)
        ],
    )
    assert [bool(learner.table.find("default", "a", f"ss{n}")) for n in range(3)] == [False, True, True]
    assert learner.evicted == 1


@pytest.mark.parametrize("lie", [LIES["year 2298"], LIES["a day ahead"], LIES["year 1901"]])
def test_a_profile_learns_at_the_same_pace_beside_a_liar(lie: datetime) -> None:
    """The windows of an agent's refusals, the past it is compared with, and its calm, stay its own."""
    rng = Random(7)
    honest = [
        live(
            "policy.checked", hour * 3600, agent_id="honest", session_id=f"s{hour}", policy_decision=decision
        )
        for hour in range(60)
        if (decision := "deny" if rng.random() < 0.2 else "allow")
    ]
    plain, lied = PolicyBlocks(), PolicyBlocks()
    run(plain, honest)
    for number, one in enumerate(honest):
        run(
            lied,
            [one, live("tool.executed", number * 3600 + 1, lie, agent_id="liar", session_id=f"x{number}")],
        )
    own = ("default", "honest")
    assert lied._agents[own].state() == plain._agents[own].state()


def test_gate_and_detection_mean_the_same_by_late() -> None:
    assert timedelta(microseconds=LATENESS) == gate.LATENESS
