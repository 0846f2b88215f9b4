"""The demo's course: load the past, start the fleet, watch what Watchkeeper finds, sum up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from monitor.client import Unreachable
from monitor.simulation.history import write_history
from monitor.simulation.plan import Plan
from monitor.simulation.reporter import Reporter
from monitor.simulation.result import DemoResult
from monitor.simulation.site import Site
from monitor.simulation.watcher import Api, Watcher, judged
from monitor.sources.file import chunks

POLL_SECONDS = 0.15
BATCH = 500
LOAD_SECONDS = 120.0
"""How long the daemon may take to be ready, and then to judge the history."""


class DemoFailed(Exception):  # noqa: N818 - it states a fact, and the CLI shows it as one
    """The demo cannot go on; the message says what was missing."""


def run_demo(
    edge_url: str,
    api: Api,
    plan: Plan,
    site: Site,
    report: Reporter,
    *,
    folder: Path,
    key: str | None = None,
    once: bool = False,
    deadline_s: float = 120.0,
) -> DemoResult:
    """Tell the whole story against a running daemon and say what came of it.

    ``folder`` is where the history file is written; ``site`` must be open already, for the
    daemon has its endpoint in its settings. With ``once`` it returns when every story is
    caught and the stop is proven, or ``deadline_s`` after the fleet's start; without, it
    goes on telling until KeyboardInterrupt. Raises DemoFailed where the daemon is not
    ready or does not judge the history.
    """
    _wait_until_ready(api)
    result = DemoResult()
    _load_history(api, plan, report, folder / "history.ndjson.gz", result)
    report.heading(f"The fleet starts: {len(plan.members)} agents, seed {plan.seed}")
    watcher = Watcher(api, plan, site, report, result)
    with _until_interrupted(report), _running(site, edge_url, key):
        began = time.monotonic()
        while not watcher.complete() and time.monotonic() - began < deadline_s:
            watcher.look()
            time.sleep(POLL_SECONDS)
        watcher.summary()
        if not once:
            report.say("the fleet runs on, and the console with it; Ctrl-C ends both")
        while not once:
            watcher.look()
            time.sleep(POLL_SECONDS)
    return result


@contextmanager
def _until_interrupted(report: Reporter) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        report.still()


@contextmanager
def _running(site: Site, edge_url: str, key: str | None) -> Iterator[None]:
    """The fleet, which must end before the daemon that it sends to."""
    try:
        site.start(edge_url, key)
        yield
    finally:
        site.end_fleet()


def _wait_until_ready(api: Api) -> None:
    deadline = time.monotonic() + LOAD_SECONDS
    while True:
        try:
            api.get("/readyz")
            return
        except Unreachable as error:
            if time.monotonic() > deadline:
                raise DemoFailed(f"the daemon did not become ready: {error}") from None
            time.sleep(POLL_SECONDS)


def _load_history(api: Api, plan: Plan, report: Reporter, file: Path, result: DemoResult) -> None:
    counts = write_history(plan, datetime.now(UTC), file)
    report.say(
        f"two weeks of the past of {counts.agents} agents: {counts.events:,} events, marked as replayed"
    )
    before = judged(api)
    began = time.monotonic()
    with report.loading("loading", counts.events) as advance:
        for lines, _, _ in chunks(file, BATCH):
            receipt = api.send(lines, live=False)
            if receipt["rejected"]:
                raise DemoFailed(f"the daemon refused an event of the history: {receipt['rejected'][0]}")
            advance(len(lines))
    sent = time.monotonic() - began
    while judged(api) - before < counts.events:
        if time.monotonic() - began > LOAD_SECONDS:
            raise DemoFailed("detection did not judge the history in time; see the log")
        time.sleep(POLL_SECONDS)
    taken = time.monotonic() - began
    result.events_per_second = counts.events / taken
    report.say(f"on disk after {sent:.1f} s, judged after {taken:.1f} s: the detectors are warm")
