"""Incidents: the list, and one of them."""

from __future__ import annotations

import json
from urllib.parse import quote

import click

from monitor.commands.common import AS_JSON, client_of


@click.group()
def incidents() -> None:
    """List incidents, or show one with its alerts and its log."""


@incidents.command("list")
@click.option(
    "--status",
    type=click.Choice(["open", "in_progress", "closed"]),
    multiple=True,
    help="Only incidents of this status; several are allowed. Those not closed where absent.",
)
@click.option("--agent", help="Only this agent.")
@click.option("--owner", help="Only those of this person.")
@AS_JSON
@click.pass_context
def incidents_list(
    context: click.Context, status: tuple[str, ...], agent: str | None, owner: str | None, as_json: bool
) -> None:
    """List incidents, newest first."""
    from monitor.tables import incidents_table, show

    asked = {"status": list(status) or None, "agent": agent, "owner": owner}
    found = list(client_of(context).incidents(**asked))
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(incidents_table(found))


@incidents.command("show")
@click.argument("incident_id", metavar="ID")
@AS_JSON
@click.pass_context
def incidents_show(context: click.Context, incident_id: str, as_json: bool) -> None:
    """Show one incident: its alerts, and what was done and said."""
    from monitor.tables import incident_page, show

    found = client_of(context).get(f"/api/v1/incidents/{quote(incident_id, safe='')}")
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(incident_page(found))
