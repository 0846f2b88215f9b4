"""Measuring this machine."""

from __future__ import annotations

import json

import click

from monitor.commands.common import AS_JSON


@click.group()
def bench() -> None:
    """Measure this machine; every figure in docs/benchmarks.md comes from here."""


@bench.command("ingest")
@click.option("--events", default=100_000, show_default=True, help="How many events to send.")
@click.option("--batch", default=500, show_default=True, help="Events per request.")
@click.option("--senders", default=4, show_default=True, help="Connections that send at once.")
@AS_JSON
@click.pass_context
def bench_ingest(context: click.Context, events: int, batch: int, senders: int, as_json: bool) -> None:
    """Events per second from HTTP to answered, judged and stored, by a daemon of its own."""
    from monitor.bench import ingest
    from monitor.tables import facts, show

    found = ingest(events, batch, senders)
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(facts(found["events_per_second"].items()))
        show(facts([("events per request", batch), ("peak RSS, MB", found["peak_rss_mb"])]))
