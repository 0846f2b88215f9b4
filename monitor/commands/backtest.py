"""Recorded telemetry through the production path: what would have alerted, and how well."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from monitor.commands.common import AS_JSON, FILES, Moment, settings_of


@click.command()
@FILES
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV of session_id and label (attack, benign), gzip too: adds recall and false positives.",
)
@click.option(
    "--warm-up-until",
    "since",
    type=Moment(),
    default=0,
    help="Sessions before it are learned from and not counted.",
)
@click.option("--detectors", metavar="NAMES", help="Only these, with commas; sigma stands for the rules.")
@click.option(
    "--rules",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="These rules instead of the shipped ones.",
)
@click.option(
    "--false-alert-rate",
    "rate",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the sessions that are no attack in which the learning detectors may alert.",
)
@click.option(
    "--budget-per-day",
    "per_day",
    type=click.FloatRange(0, min_open=True),
    help="The same as false alerts a day, at the sessions a day that the files hold.",
)
@click.option(
    "--scores",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write one line per session and detector to this CSV file.",
)
@AS_JSON
@click.pass_context
def backtest(
    context: click.Context,
    files: tuple[Path, ...],
    labels: Path | None,
    since: int,
    detectors: str | None,
    rules: tuple[Path, ...],
    rate: float | None,
    per_day: float | None,
    scores: Path | None,
    as_json: bool,
) -> None:
    """Judge recorded NDJSON (gzip too) as the daemon would, and report what would have alerted.

    The rate is that of the settings where none is given. Exit code 1 if any line was refused.
    """
    from monitor import backtest as testing
    from monitor.progress import file_progress
    from monitor.rulebook import load
    from monitor.tables import backtest_page, show

    settings = settings_of(context)
    names = _names(detectors, testing.NAMES)
    try:
        known = testing.read_labels(labels) if labels else None
    except testing.LabelsError as error:
        raise click.ClickException(str(error)) from None
    if rate is not None and per_day is not None:
        raise click.UsageError("give --false-alert-rate or --budget-per-day, not both")
    loaded = load(settings, rules)
    if per_day is not None:
        with file_progress(files) as advance:
            rate = _rate(per_day, testing.sessions_per_day(files, advance))
    if rate is None:
        rate = settings.detection.false_alerts_per_1000_sessions / 1_000
    refused = 0

    def reject(file: Path, fault: Any) -> None:
        nonlocal refused
        refused += 1
        click.echo(f"{file}:{fault.index}: {fault.reason}", err=True)

    begun = time.perf_counter()
    with file_progress(files) as advance:
        board = testing.run(settings, loaded, files, names, rate, reject, advance)
    said = testing.report(board, rate, since, time.perf_counter() - begun, known)
    if scores is not None:
        testing.write_scores(board, scores)
    if as_json:
        click.echo(json.dumps(said))
    else:
        show(backtest_page(said))
    context.exit(1 if refused else 0)


def _names(given: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    names = known if given is None else tuple(name.strip() for name in given.split(",") if name.strip())
    for name in names:
        if name not in known:
            raise click.UsageError(f"no detector is called {name!r}; there are {', '.join(known)}")
    return names


def _rate(per_day: float, sessions_per_day: float) -> float:
    if not sessions_per_day:
        raise click.ClickException("the files name no sessions, so false alerts a day mean nothing here")
    return min(1.0, per_day / sessions_per_day)
