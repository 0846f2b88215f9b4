"""Alerts: the queue, and one of them."""

from __future__ import annotations

import json

import click

from monitor.commands.common import AS_JSON, client_of


@click.group()
def alerts() -> None:
    """List alerts, or show one."""


@alerts.command("list")
@click.option(
    "--status",
    type=click.Choice(["new", "acknowledged", "in_progress", "closed", "suppressed"]),
    help="Only alerts of this status.",
)
@click.option(
    "--level",
    type=click.Choice(["informational", "low", "medium", "high", "critical"]),
    help="Only alerts of this level.",
)
@click.option("--agent", help="Only this agent.")
@AS_JSON
@click.pass_context
def alerts_list(
    context: click.Context, status: str | None, level: str | None, agent: str | None, as_json: bool
) -> None:
    """List alerts, newest first."""
    from monitor.tables import alerts_table, show

    found = list(client_of(context).alerts(status=status, level=level, agent=agent))
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(alerts_table(found))


@alerts.command("show")
@click.argument("alert_id", metavar="ID")
@AS_JSON
@click.pass_context
def alerts_show(context: click.Context, alert_id: str, as_json: bool) -> None:
    """Show one alert: why it fired, the evidence, its order and its history."""
    from urllib.parse import quote

    from monitor.tables import alert_page, show

    found = client_of(context).get(f"/api/v1/alerts/{quote(alert_id, safe='')}")
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(alert_page(found))
