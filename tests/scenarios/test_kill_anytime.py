"""SIGKILL at any moment: every answered event once, every alert once, every order with one effect."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from monitor.settings import load
from tests.chaos.judgement import held, judged_anew, spooled
from tests.chaos.run import Run, run
from tests.chaos.senders import send_and_hang_up
from tests.daemons import running, stored_ids
from tests.scenarios.test_daemon import line

BROKEN = ("judging-failed", "detector-", "spool-gap", "active-after-stop")
"""Own alerts that a kill must never cause."""


def check_events(lived: Run) -> None:
    """Every answered event is stored exactly once, and nothing else but what was sent, once at most."""
    tried = set().union(*(sender.sent.tried for sender in lived.senders))
    answered = set().union(*(sender.sent.answered for sender in lived.senders))
    assert [fault for sender in lived.senders for fault in sender.sent.faults] == []
    assert answered == tried  # nobody gives up
    spool = spooled(lived.archive.folder)
    by_senders = [name for name in spool["event_id"].to_pylist() if name.startswith("s")]
    assert Counter(by_senders) == Counter(tried)
    stored = stored_ids(lived.daemon.data)
    assert Counter(stored) == Counter(spool["event_id"].to_pylist())


def check_alerts_and_orders(lived: Run) -> None:
    """Alerts and orders are those of one run over the same spool that nobody disturbed."""
    folder = lived.daemon.data.parent
    is_now = held(lived.daemon.data / "state.db")
    should = judged_anew(load(lived.daemon.config, data=folder / "anew"), lived.archive.folder)
    assert set(is_now.findings) == set(should.findings)
    assert is_now.findings == should.findings
    assert is_now.alerts == should.alerts
    assert is_now.targets() == should.targets()
    assert {order.request_id for order in is_now.orders} == {order.request_id for order in should.orders}
    assert [f"{a.title}: {a.reason}" for a in is_now.own if any(word in a.rule_id for word in BROKEN)] == []
    assert Counter(lived.site.effects.values()) == {1: len(is_now.orders)}
    assert lived.site.effects.keys() == is_now.targets().keys()
    assert set(lived.site.asked) == {order.request_id for order in is_now.orders}
    assert all(len(set(targets)) == 1 for targets in lived.site.asked.values())
    assert {order.state for order in is_now.orders} == {"contained"}


@pytest.mark.parametrize(
    ("seed", "kills"),
    [(1, 9), *(pytest.param(seed, 50, marks=pytest.mark.slow) for seed in (2, 3, 4))],
)
@pytest.mark.timeout(1800)
def test_after_kills_at_any_moment_everything_is_there_once(tmp_path: Path, seed: int, kills: int) -> None:
    with run(tmp_path, seed) as lived:
        try:
            lived.under_load(seed, kills)
        finally:
            print(f"seed {seed}; kills: {lived.done}")
        check_events(lived)
        check_alerts_and_orders(lived)


def denials(session: str, count: int) -> list[bytes]:
    """An agent that keeps pushing at a policy; the fifth denial makes an alert."""
    return [
        line(
            "policy.checked",
            at=i,
            session_id=session,
            agent_id=session,
            policy_decision="deny",
            policy_id="dlp-7",
            outcome="blocked",
        )
        for i in range(count)
    ]


def test_a_batch_repeated_after_its_answer_was_lost_changes_nothing(tmp_path: Path) -> None:
    few, enough = denials("four-denials", 4), denials("six-denials", 6)
    with running(tmp_path / "data") as daemon:
        port = int(daemon.runtime.edge_url.rpartition(":")[2])
        headers = {
            "Authorization": f"Bearer {daemon.runtime.token}",
            "Content-Type": "application/x-ndjson",
        }
        for patience in (0.0, 0.002, 0.01, 0.1):
            for batch in (few, enough):
                assert send_and_hang_up(port, b"\n".join(batch), headers, patience)
        for batch in (few, enough):
            assert daemon.client.send(batch, live=True)["duplicates"] == len(batch)
        daemon.stop()
    found = held(tmp_path / "data" / "state.db")
    assert [(a["agent_id"], a["count"]) for a in found.alerts.values()] == [("six-denials", 1)]
    sent = [json.loads(raw)["event_id"] for raw in few + enough]
    assert stored_ids(tmp_path / "data") == sorted(sent)
