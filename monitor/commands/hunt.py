"""A rule over stored history, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from monitor.commands.common import AS_JSON, Moment, settings_of


@click.command()
@click.argument("rule")
@click.option(
    "--rules",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Files or folders that hold the rule; those of the settings where absent.",
)
@click.option("--from", "since", type=Moment(), default="7d", show_default=True, help="First event's time.")
@click.option("--to", "until", type=Moment(), default="0m", help="Time up to which; now where absent.")
@AS_JSON
@click.pass_context
def hunt(
    context: click.Context,
    rule: str,
    rules: tuple[Path, ...],
    since: int,
    until: int,
    as_json: bool,
) -> None:
    """Run RULE (id, name, title or file) over stored history: hits per day, and what would have alerted.

    It asks the running daemon; where none runs, it opens the store itself.
    """
    from monitor.authoring.naming import UnknownRuleError, rule_and_set
    from monitor.progress import part_progress
    from monitor.tables import hunt_page, show

    settings = settings_of(context)
    if since >= until:
        raise click.UsageError("--from must lie before --to")
    try:
        chosen, loaded = rule_and_set(settings, rule, rules)
    except UnknownRuleError as error:
        raise click.ClickException(str(error)) from None
    with part_progress(f"hunting {chosen.title}") as advance:
        found = _hunted(settings, loaded, chosen, (since, until), advance)
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(hunt_page(found))


def _hunted(settings: Any, rules: Any, rule: Any, bounds: tuple[int, int], advance: Any) -> dict[str, Any]:
    import msgspec

    from monitor.client import Client
    from monitor.hunting import hunt as run
    from monitor.runtime import read_runtime
    from monitor.store.clickhouse import EventStore

    if read_runtime(settings.data) is not None:
        needed = rules.needed(rule)
        asked = {
            "rule": rule.id,
            "documents": [(one.path, one.text) for one in needed],
            "lists": {name: list(values) for name, values in rules.site.lists.items()},
            "pipelines": list(rules.site.mapping.version),
            "since": bounds[0],
            "until": bounds[1],
        }
        return Client.find(settings.data).hunt(asked, advance)
    store = EventStore.open(settings)
    try:
        client = store.connect()
        found: dict[str, Any] = msgspec.to_builtins(run(client, rules, rule, *bounds, progress=advance))
        return found
    finally:
        store.close()
