"""Stopping an agent or a session by hand."""

from __future__ import annotations

import json

import click

from monitor.commands.common import AS_JSON, client_of


@click.command()
@click.option("--session", help="Stop this session.")
@click.option("--agent", help="Stop this agent; with --session, the agent the session belongs to.")
@click.option("--tenant", help="The target's tenant, where the target alone does not tell.")
@click.option("--environment", help="The target's environment, where the target alone does not tell.")
@click.option("--reason", required=True, help="Why; it is recorded and sent.")
@click.option("--wait", default=60.0, show_default=True, help="Seconds to wait for proof of silence.")
@AS_JSON
@click.pass_context
def kill(
    context: click.Context,
    session: str | None,
    agent: str | None,
    tenant: str | None,
    environment: str | None,
    reason: str,
    wait: float,
    as_json: bool,
) -> None:
    """Order a session or an agent stopped, and wait until it is proven silent.

    Exit code 0 only when contained: every enforcement point confirmed and telemetry silent.
    """
    if not (session or agent):
        raise click.UsageError("name what to stop: --session ID or --agent ID")
    from monitor.tables import order_line

    client = client_of(context)
    wanted = {
        "action": "stop",
        "scope": "session" if session else "agent",
        "session_id": session,
        "agent_id": agent,
        "tenant": tenant,
        "environment": environment,
        "reason": reason,
    }
    order = client.post("/api/v1/orders", {name: value for name, value in wanted.items() if value})
    for seen in client.follow_order(order["request_id"], wait):
        order = seen
        if not as_json:
            click.echo(order_line(order))
    if as_json:
        click.echo(json.dumps(order))
    context.exit(0 if order["state"] == "contained" else 1)
