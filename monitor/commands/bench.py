"""Measuring this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from monitor.commands.common import AS_JSON, settings_of


@click.group()
def bench() -> None:
    """Measure this machine; every figure in docs/benchmarks.md comes from here."""


@bench.command("ingest")
@click.option("--events", default=100_000, show_default=True, help="How many events to send.")
@click.option("--batch", default=500, show_default=True, help="Events per request.")
@click.option("--senders", default=8, show_default=True, help="Connections that send at once.")
@click.option("--busy", is_flag=True, help="Meanwhile hunt over 5 million events, refit and export.")
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


@bench.command("rules")
@click.option(
    "--rules",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Rule files or folders; those of the settings where absent.",
)
@click.option(
    "--events",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="NDJSON, gzip too.",
)
@click.option(
    "--batch", default=10_000, show_default=True, type=click.IntRange(1), help="Events judged at once."
)
@AS_JSON
@click.pass_context
def bench_rules(
    context: click.Context, rules: tuple[Path, ...], events: Path, batch: int, as_json: bool
) -> None:
    """Events per second from JSON bytes to matches, on one core, and the time a batch takes."""
    from monitor.bench.rules import bench_rules as measured
    from monitor.tables import facts, show

    settings = settings_of(context)
    try:
        found = measured(rules or settings.detection.rules, events, batch, settings.lists)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(found))
        return
    times = found.pop("batch_ms")
    show(facts([(name.replace("_", " "), value) for name, value in found.items()]))
    show(facts([(f"batch ms {name}", value) for name, value in times.items()]))


@bench.command("detectors")
@click.option(
    "--events",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Recorded events, NDJSON or gzip; a simulated fleet's history where none are given.",
)
@AS_JSON
def bench_detectors(events: Path | None, as_json: bool) -> None:
    """Measure the learning detectors, with learning, on one core."""
    from monitor.bench.detectors import bench_detectors as measure
    from monitor.tables import show, table

    try:
        found = measure(events)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(found))
        return
    page = table("detector", "per second", "of", "state per agent, kB")
    for name, figures in found.items():
        page.add_row(
            name, f"{figures['per_second']:,}", figures["unit"], f"{figures['state_kb_per_agent']:g}"
        )
    show(page)


@bench.command("console")
@click.option(
    "--alerts", default=50_000, show_default=True, type=click.IntRange(1), help="Alerts to fill in."
)
@click.option(
    "--events", default=5_000_000, show_default=True, type=click.IntRange(400), help="Events stored."
)
@AS_JSON
def bench_console(alerts: int, events: int, as_json: bool) -> None:
    """Measure the console over a full history: its pages, rows in Chromium, and live news."""
    from monitor.bench.console import bench_console as measure
    from monitor.progress import stage_progress
    from monitor.tables import show, table

    try:
        with stage_progress() as progress:
            found = measure(alerts, events, progress)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(found))
        return
    page = table("milliseconds", "p50", "p95", "max", "cold")
    for name, took in found.items():
        if isinstance(took, dict):
            values = [f"{took[part]:g}" if part in took else "" for part in ("p50", "p95", "max", "cold")]
            page.add_row(name.removesuffix("_ms").replace("_", " "), *values)
        elif took is None:
            page.add_row(name.removesuffix("_ms").replace("_", " "), "no Chromium or no Playwright here")
    show(page)
