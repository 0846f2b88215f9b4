"""API keys of senders and programs."""

from __future__ import annotations

import json

import click

from monitor.commands.common import AS_JSON, state_of
from monitor.people.roles import RIGHTS

DAY = 86_400_000_000
"""Microseconds."""


@click.group()
def keys() -> None:
    """Create, list and revoke API keys of senders and programs."""


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["ingest", "replay", *RIGHTS]),
    default=("ingest",),
    show_default=True,
    help="What it may do; several are allowed.",
)
@click.option("--tenant", default="default", show_default=True, help="What the key may speak for.")
@click.option("--agent", "agents", multiple=True, help="Tie the key to these agents only.")
@click.option(
    "--days", type=click.IntRange(1, 3650), help="Refuse it after so many days; never where absent."
)
@AS_JSON
@click.pass_context
def keys_create(
    context: click.Context,
    name: str,
    scopes: tuple[str, ...],
    tenant: str,
    agents: tuple[str, ...],
    days: int | None,
    as_json: bool,
) -> None:
    """Create a key and print it once; only its hash is kept."""
    from monitor.people.trail import entry, note, of_this_machine
    from monitor.sources.keys import LOCAL, Keys
    from monitor.store.state import now

    if name == LOCAL:
        raise click.UsageError(f"{LOCAL!r} is the name of this machine's own key; choose another")
    state = state_of(context)
    expires_at = None if days is None else now() + days * DAY
    key_id, secret = Keys(state).create(name, tenant, agents, scopes, expires_at)
    detail = {"name": name, "tenant": tenant, "scopes": list(scopes), "days": days}
    note(state, entry(of_this_machine(), "key.create", f"key:{key_id}", detail=detail))
    if as_json:
        click.echo(json.dumps({"id": key_id, "key": secret}))
    else:
        click.echo(f"{key_id}  {secret}\nIt is shown only now. Senders: Authorization: Bearer {secret[:6]}…")


@keys.command("list")
@AS_JSON
@click.pass_context
def keys_list(context: click.Context, as_json: bool) -> None:
    """List keys, without their secrets."""
    from monitor.sources.keys import Keys
    from monitor.tables import keys_table, show

    found = Keys(state_of(context)).list()
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(keys_table(found))


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@click.pass_context
def keys_revoke(context: click.Context, key_id: str) -> None:
    """Revoke a key; the edge refuses it within two seconds."""
    from monitor.people.trail import entry, note, of_this_machine
    from monitor.sources.keys import Keys

    state = state_of(context)
    if not Keys(state).revoke(key_id):
        raise click.ClickException(f"no key {key_id!r} is in force; `watchkeeper keys list` shows them")
    note(state, entry(of_this_machine(), "key.revoke", f"key:{key_id}"))
