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
@click.option("--senders", default=8, show_default=True, help="Connections that send at once.")
@click.option("--busy", is_flag=True, help="Meanwhile scan 5 million events, refit and export.")
@AS_JSON
def bench_ingest(events: int, batch: int, senders: int, busy: bool, as_json: bool) -> None:
    """Events per second from HTTP to answered, judged and stored, and the delay to alert and order."""
    from monitor.bench.ingest import ingest
    from monitor.tables import facts, show

    found = ingest(events, batch, senders, busy, lambda step: click.echo(f"{step} ...", err=True))
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        show(facts([(f"{name} {part}".strip().replace("_", " "), figure) for part, figure in parts]))
