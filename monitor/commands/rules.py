"""Rules: list, check, test and explain them, and see what they cover."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.commands.common import AS_JSON, settings_of

if TYPE_CHECKING:
    from monitor.settings import Settings

PATHS = click.argument("paths", nargs=-1, metavar="[DIR]...", type=click.Path(exists=True, path_type=Path))


@click.group()
def rules() -> None:
    """Check, test and explain rules: those of DIR, else those of the settings."""


@rules.command("list")
@PATHS
@AS_JSON
@click.pass_context
def rules_list(context: click.Context, paths: tuple[Path, ...], as_json: bool) -> None:
    """List rules: level, tags, what makes them fire, whether they are active."""
    from monitor.authoring.overview import overview
    from monitor.authoring.pages import list_page
    from monitor.rulebook import load

    found = overview(load(settings_of(context), paths))
    _print(found, list_page, as_json)


def _stored_keys(settings: Settings) -> set[str] | None:
    """The attributes of the running daemon's history; None where none runs."""
    from monitor.client import Client
    from monitor.runtime import read_runtime

    if read_runtime(settings.data) is None:
        return None
    return set(Client.find(settings.data).get("/api/v1/attributes")["items"])


@rules.command("check")
@PATHS
@click.option(
    "--events",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="NDJSON (gzip too) of your own: tell every field that no event in it carries.",
)
@click.option("--strict", is_flag=True, help="Warnings fail, and notes are told.")
@AS_JSON
@click.pass_context
def rules_check(
    context: click.Context, paths: tuple[Path, ...], files: tuple[Path, ...], strict: bool, as_json: bool
) -> None:
    """Look for faults: all at once, with what was probably meant.

    Fields that no event carries are told: of the events given, else of the running daemon's history.

    Exit code 1 where a rule cannot be used; with --strict for any warning as well.
    """
    from monitor.authoring.field_names import carried_keys
    from monitor.authoring.lint import check
    from monitor.authoring.pages import check_page
    from monitor.rulebook import load

    settings = settings_of(context)
    carried = set().union(*map(carried_keys, files)) if files else _stored_keys(settings)
    report = check(lambda: load(settings, paths), carried, strict)
    _print(report.as_data() if as_json else report, check_page, as_json)
    context.exit(0 if report.ok else 1)


@rules.command("test")
@PATHS
@click.option("--rule", "called", metavar="ID", help="Only this rule, by id, name or title.")
@AS_JSON
@click.pass_context
def rules_test(context: click.Context, paths: tuple[Path, ...], called: str | None, as_json: bool) -> None:
    """Run the tests inside the rule files. Exit code 1 where one fails, or where there is none."""
    from monitor.authoring.naming import named_rule
    from monitor.authoring.pages import test_page
    from monitor.authoring.trials import trials
    from monitor.progress import counted
    from monitor.rulebook import load

    loaded = load(settings_of(context), paths)
    chosen = [named_rule(loaded, called)] if called is not None else list(loaded.rules)
    with counted("testing", sum(len(rule.tests) for rule in chosen)) as advance:
        done = trials(loaded, chosen, advance)
    _print(done.as_data() if as_json else done, test_page, as_json)
    context.exit(0 if done.ok else 1)


@rules.command("explain")
@click.argument("rule")
@click.argument("events", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--rules",
    "folders",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Where the rule is; the settings say it otherwise.",
)
@click.option("--event", "event_id", metavar="ID", help="Only the event with this id.")
@click.option("--most", default=20, show_default=True, help="So many events at most: the nearest.")
@AS_JSON
@click.pass_context
def rules_explain(
    context: click.Context,
    rule: str,
    events: Path,
    folders: tuple[Path, ...],
    event_id: str | None,
    most: int,
    as_json: bool,
) -> None:
    """Say for each condition of RULE what was wanted, what was seen in EVENTS, and whether it held.

    RULE is an id, a name, a title, or a YAML file; EVENTS an NDJSON file of any JSON objects (gzip
    too), or - for stdin.
    """
    from monitor.authoring.explaining import explain
    from monitor.authoring.naming import rule_and_set
    from monitor.authoring.pages import explain_page
    from monitor.authoring.scene import scene

    chosen, loaded = rule_and_set(settings_of(context), rule, folders)
    with _readable(events) as file:
        seen = scene(
            loaded, chosen, [file], lambda _, bad: click.echo(f"{events}:{bad.index}: {bad.reason}", err=True)
        )
    _print(explain(chosen, seen, most, event_id), explain_page, as_json)


@rules.command("coverage")
@PATHS
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to this file.")
@AS_JSON
@click.pass_context
def rules_coverage(context: click.Context, paths: tuple[Path, ...], html: Path | None, as_json: bool) -> None:
    """Draw what the rules cover of OWASP Agentic 2026 and MITRE ATLAS, holes included."""
    from monitor.authoring.coverage import coverage
    from monitor.authoring.coverage_html import coverage_html
    from monitor.authoring.coverage_page import coverage_page
    from monitor.rulebook import load

    found = coverage(load(settings_of(context), paths))
    if html is not None:
        html.write_text(coverage_html(found), encoding="utf-8")
        click.echo(f"written to {html}", err=True)
    _print(found, coverage_page, as_json)


def _print(found: Any, page: Any, as_json: bool) -> None:
    from monitor.tables import show

    if as_json:
        click.echo(json.dumps(found))
    else:
        show(page(found))


@contextmanager
def _readable(events: Path) -> Iterator[Path]:
    """The file; what comes on stdin as one, since it is read more than forwards."""
    if str(events) != "-":
        yield events
        return
    from shutil import copyfileobj
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        file = Path(folder) / "stdin"
        with file.open("wb") as copy:
            copyfileobj(sys.stdin.buffer, copy)
        yield file
