"""People of the console and what they did, from a shell on the daemon's machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from monitor.commands.common import AS_JSON, Moment, state_of
from monitor.people.roles import ROLES

if TYPE_CHECKING:
    from monitor.people.accounts import People

ROLE = click.Choice([*ROLES])
REASON = click.option("--reason", default="", help="Why; the audit trail keeps it.")


@click.group()
def people() -> None:
    """Add, list and change the people who use the console."""


@people.command("add")
@click.argument("name")
@click.option("--role", type=ROLE, required=True, help="What they may do.")
@click.option("--email", help="Their address.")
@click.option("--password-stdin", is_flag=True, help="Read a password from standard input.")
@REASON
@click.pass_context
def people_add(
    context: click.Context, name: str, role: str, email: str | None, password_stdin: bool, reason: str
) -> None:
    """Add NAME. Without a password they sign in by `watchkeeper login NAME` and may set one."""
    password = sys.stdin.readline().rstrip("\n") if password_stdin else None
    with _accounts(context) as (people, by):
        people.add(name, role, by, email=email, password=password, reason=reason)
    click.echo(f"{name} is {role}{'' if password else f'; `watchkeeper login {name}` makes a link'}")


@people.command("role")
@click.argument("name")
@click.argument("role", type=ROLE)
@REASON
@click.pass_context
def people_role(context: click.Context, name: str, role: str, reason: str) -> None:
    """Give NAME another ROLE, from their next request on."""
    with _accounts(context) as (people, by):
        people.change_role(name, role, by, reason)


@people.command("password")
@click.argument("name")
@click.pass_context
def people_password(context: click.Context, name: str) -> None:
    """Set NAME's password, asked for or read from a pipe; they sign in anew."""
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    with _accounts(context) as (people, by):
        people.set_password(name, password, by)


@people.command("disable")
@click.argument("name")
@REASON
@click.pass_context
def people_disable(context: click.Context, name: str, reason: str) -> None:
    """Sign NAME out everywhere and let them in no more."""
    with _accounts(context) as (people, by):
        people.disable(name, by, reason)


@people.command("enable")
@click.argument("name")
@REASON
@click.pass_context
def people_enable(context: click.Context, name: str, reason: str) -> None:
    """Let NAME in again."""
    with _accounts(context) as (people, by):
        people.enable(name, by, reason)


@people.command("list")
@AS_JSON
@click.pass_context
def people_list(context: click.Context, as_json: bool) -> None:
    """List everybody, with their roles."""
    from monitor.people.accounts import People
    from monitor.tables import people_table, show

    found = People(state_of(context)).list()
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(people_table(found))


@click.command()
@click.option("--actor", help="Only what this person or key did.")
@click.option("--action", help="Only this act, or what begins with it: alert., sign_in.")
@click.option("--subject", help="Only what was done to this: alert:a_…, person:ana.")
@click.option("--since", type=Moment(), help="Only newer ones: 90m, 24h, 7d, or a date and time.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many at most."
)
@AS_JSON
@click.pass_context
def audit(
    context: click.Context,
    actor: str | None,
    action: str | None,
    subject: str | None,
    since: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show the audit trail: who did what to what, when, from where and why; newest first."""
    from monitor.people.reading import Asked, entries, plain
    from monitor.tables import audit_table, show

    with state_of(context).read() as session:
        found = [plain(one) for one in entries(session, Asked(actor, action, subject, since), limit)]
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(audit_table(found))


@contextmanager
def _accounts(context: click.Context) -> Iterator[tuple[People, str]]:
    """The accounts, and who changes them; what cannot be is told as commands do."""
    from monitor.people.accounts import AccountError, People
    from monitor.people.trail import of_this_machine

    try:
        yield People(state_of(context)), of_this_machine()
    except AccountError as error:
        raise click.ClickException(str(error)) from None
