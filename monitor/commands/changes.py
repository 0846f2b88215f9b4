"""Declared changes: what a release pipeline says before the agent behaves differently."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

import click

from detectors.versions import VERSIONS
from monitor.commands.common import AS_JSON, client_of

KINDS = ("model", "prompt", "tools", "policy", "permission")


@click.command()
@click.argument("agent")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What was changed.")
@click.option("--ref", required=True, help="The release or ticket of the change.")
@click.option("--to", "to", multiple=True, metavar="NAME=VALUE", help=f"New version: {', '.join(VERSIONS)}.")
@click.option("--environment", help="The environment in which it was changed.")
@AS_JSON
@click.pass_context
def change(
    context: click.Context,
    agent: str,
    kind: str,
    ref: str,
    to: tuple[str, ...],
    environment: str | None,
    as_json: bool,
) -> None:
    """Declare that AGENT was changed on purpose, from now on.

    The detectors learn it anew instead of alerting on what is different, and the change is
    recorded like any event. A change of permission alone changes no expectation.
    """
    event = {
        "event_id": f"change-{uuid.uuid4()}",
        "event_type": "change.declared",
        "timestamp": datetime.now(UTC).isoformat(),
        "agent_id": agent,
        "change_kind": kind,
        "change_ref": ref,
        "environment": environment,
        **dict(map(_version, to)),
    }
    receipt = client_of(context).send([json.dumps(event).encode()], live=True)
    for fault in receipt["rejected"]:
        raise click.ClickException(f"the daemon refused it: {fault['reason']}")
    if as_json:
        click.echo(json.dumps(event))
    else:
        click.echo(f"declared: {kind} of {agent} changed ({ref}); it is learned anew from here on")


def _version(given: str) -> tuple[str, str]:
    name, _, value = given.partition("=")
    if name not in VERSIONS or not value:
        raise click.UsageError(f"--to {given}: it must be NAME=VALUE with one of {', '.join(VERSIONS)}")
    return name, value
