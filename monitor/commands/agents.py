"""The inventory of agents, from the command line."""

from __future__ import annotations

import json
from typing import Any

import click

from monitor.commands.common import AS_JSON, client_of, state_of

TENANT = click.option("--tenant", default="default", show_default=True, help="Whose agent it is.")
REASON = click.option("--reason", default="", help="Why; the audit trail keeps it.")


@click.group()
def agents() -> None:
    """List the agents that were seen and declared, and declare them."""


@agents.command("list")
@AS_JSON
@click.pass_context
def agents_list(context: click.Context, as_json: bool) -> None:
    """List every agent, those that nobody declared first."""
    from monitor.tables import agents_table, show

    client = client_of(context)
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for one in client.get("/api/v1/agents")["items"]:
        lines[one["tenant"], one["agent_id"]] = {**one, "declared": None}
    for one in client.get("/api/v1/declared-agents")["items"]:
        place = (one["tenant"], one["agent_id"])
        unseen = {"tenant": one["tenant"], "agent_id": one["agent_id"], "events": 0, "sessions": 0}
        lines.setdefault(place, {**unseen, "first_seen": None, "last_seen": None})["declared"] = one
    found = sorted(
        lines.values(), key=lambda one: (one["declared"] is not None, one["tenant"], one["agent_id"])
    )
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(agents_table(found))


@agents.command("declare")
@click.argument("agent")
@click.option("--owner", required=True, help="Who answers for it.")
@click.option(
    "--risk-tier",
    type=click.Choice(["low", "medium", "high"]),
    default="medium",
    show_default=True,
    help="How much harm it can do.",
)
@click.option("--purpose", default="", help="What it is for.")
@click.option("--tool", "tools", multiple=True, help="A tool that it may use; several are allowed.")
@click.option("--model", "models", multiple=True, help="A model that it may use; several are allowed.")
@TENANT
@REASON
@click.pass_context
def agents_declare(
    context: click.Context,
    agent: str,
    owner: str,
    risk_tier: str,
    purpose: str,
    tools: tuple[str, ...],
    models: tuple[str, ...],
    tenant: str,
    reason: str,
) -> None:
    """Declare AGENT, in place of what was declared before."""
    from monitor.inventory import Declaration, Inventory, InventoryError
    from monitor.people.trail import of_this_machine

    said = Declaration(owner, purpose, risk_tier, tools, models)
    try:
        Inventory(state_of(context)).declare(tenant, agent, said, of_this_machine(), reason)
    except InventoryError as error:
        raise click.ClickException(str(error)) from None


@agents.command("withdraw")
@click.argument("agent")
@TENANT
@REASON
@click.pass_context
def agents_withdraw(context: click.Context, agent: str, tenant: str, reason: str) -> None:
    """Take the declaration of AGENT back."""
    from monitor.inventory import Inventory, InventoryError
    from monitor.people.trail import of_this_machine

    try:
        Inventory(state_of(context)).withdraw(tenant, agent, of_this_machine(), reason)
    except InventoryError as error:
        raise click.ClickException(str(error)) from None
