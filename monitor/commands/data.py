"""Recorded events: replay them into a daemon, or scan them without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from monitor.commands.common import AS_JSON, FILES, client_of, settings_of


@click.command()
@FILES
@click.option("--live", is_flag=True, help="Treat the events as happening now: they may page and stop.")
@AS_JSON
@click.pass_context
def replay(context: click.Context, files: tuple[Path, ...], live: bool, as_json: bool) -> None:
    """Send recorded NDJSON (gzip too) to the running daemon.

    The events are marked, so that nothing they cause pages or stops anybody, unless --live.
    Exit code 1 if any event was refused.
    """
    from monitor.progress import file_progress
    from monitor.sources.file import chunks

    client = client_of(context)
    totals = {"accepted": 0, "duplicates": 0, "rejected": 0}
    with file_progress(files) as advance:
        for file in files:
            for chunk in chunks(file, 500):
                receipt = client.send(chunk.lines, live)
                totals["accepted"] += receipt["accepted"]
                totals["duplicates"] += receipt["duplicates"]
                totals["rejected"] += len(receipt["rejected"])
                for fault in receipt["rejected"]:
                    click.echo(f"{file}:{chunk.numbers[fault['index']]}: {fault['reason']}", err=True)
                advance(file, chunk.behind)
    if as_json:
        click.echo(json.dumps(totals))
    else:
        click.echo(
            f"{totals['accepted']} accepted ({totals['duplicates']} of them were there already), "
            f"{totals['rejected']} refused"
        )
    context.exit(1 if totals["rejected"] else 0)


@click.command()
@FILES
@click.option(
    "--rules",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Judge by these rules alone, any JSON objects: keys that are no column are attributes.",
)
@click.option(
    "--learn/--rules-only",
    default=None,
    help="Judge with the learning detectors too; the default where no --rules are given.",
)
@AS_JSON
@click.pass_context
def scan(
    context: click.Context,
    files: tuple[Path, ...],
    rules: tuple[Path, ...],
    learn: bool | None,
    as_json: bool,
) -> None:
    """Judge recorded NDJSON (gzip too) with no daemon; with --json one object per match.

    The time of an event is its timestamp, else that of the line before. Exit code 1 if any line
    could not be judged.
    """
    from monitor import scan as scanning
    from monitor.progress import file_progress
    from monitor.rulebook import load
    from monitor.tables import findings_page, show

    settings = settings_of(context)
    loaded = load(settings, rules)
    refused = []

    def reject(file: Path, fault: Any) -> None:
        refused.append(fault)
        click.echo(f"{file}:{fault.index}: {fault.reason}", err=True)

    with file_progress(files) as advance:
        found = []
        if rules and not learn:
            findings = scanning.scan_any(loaded, files, reject, advance)
        else:
            findings = scanning.scan(settings, loaded, files, reject, advance, learn is not False)
        for finding in findings:
            match = scanning.as_match(finding)
            if as_json:
                click.echo(json.dumps(match))
            else:
                found.append(match)
    if not as_json:
        show(findings_page(found))
    context.exit(1 if refused else 0)
