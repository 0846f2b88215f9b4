"""The daemon itself: serve, demo, check, status, login."""

from __future__ import annotations

import json

import click

from monitor.commands.common import AS_JSON, client_of, settings_of


@click.command()
@click.pass_context
def serve(context: click.Context) -> None:
    """Run the daemon until Ctrl-C or SIGTERM."""
    from monitor import daemon
    from monitor.runtime import Runtime

    def announce(runtime: Runtime, login: str) -> None:
        click.echo(f"events   {runtime.edge_url}/v1/events (OTLP: {runtime.edge_url})")
        click.echo(f"console  {runtime.console_url}")
        click.echo(f"sign in  {login}")

    daemon.serve(settings_of(context), announce, lambda: settings_of(context))


@click.command()
@AS_JSON
@click.pass_context
def reload(context: click.Context, as_json: bool) -> None:
    """Have the running daemon take its rules and lists anew: all of them, or none.

    Exit code 1 where they cannot be used; the rules in force then stay as they are.
    """
    from monitor.reloading import ask

    found = ask(settings_of(context))
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo(f"{found['rules']} rules in force{'' if found['changed'] else ', as before'}")


@click.command()
@click.option("--once", is_flag=True, help="Run the story to its end and leave, instead of running on.")
@click.option("--seed", default=1, show_default=True, help="Decides which agent does what, when.")
@AS_JSON
@click.pass_context
def demo(context: click.Context, once: bool, seed: int, as_json: bool) -> None:
    """Show everything at work: daemon, simulated fleet, four stories, one agent really stopped.

    With --once the exit code is 0 only if every story was caught, no healthy agent was
    alerted on at level high or above, and the stop was proven.
    """
    from monitor.demo import show

    result = show(seed=seed, once=once, quiet=as_json, data=context.obj["data"])
    if as_json:
        click.echo(json.dumps(result.to_json()))
    context.exit(0 if result.ok else 1)


@click.command()
@AS_JSON
@click.pass_context
def check(context: click.Context, as_json: bool) -> None:
    """Validate settings and rules, run the rules' own tests, print the settings in force."""
    from monitor.checking import check as examine
    from monitor.tables import check_page, show

    found = examine(settings_of(context))
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(check_page(found))
    context.exit(0 if found["ok"] else 1)


@click.command()
@AS_JSON
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show the daemon's processes, lag, deliveries and detectors; exit code 1 if one is late."""
    from monitor.commands.pages import status_page
    from monitor.tables import show

    found = client_of(context).get("/api/v1/status")
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(status_page(found))
    context.exit(0 if found["ready"] else 1)


@click.command()
@click.argument("name", default="admin")
@click.pass_context
def login(context: click.Context, name: str) -> None:
    """Print a one-time link with which NAME (admin) signs in to the console of this machine's daemon."""
    from monitor.people.accounts import AccountError
    from monitor.people.sessions import create_login_link
    from monitor.people.trail import entry, note, of_this_machine
    from monitor.runtime import read_runtime
    from monitor.store.state import State

    settings = settings_of(context)
    runtime = read_runtime(settings.data)
    if runtime is None:
        raise click.ClickException(f"no daemon runs on {settings.data}; start one with `watchkeeper serve`")
    state = State(settings.state_file)
    try:
        token = create_login_link(state, name)
    except AccountError as error:
        raise click.ClickException(str(error)) from None
    note(state, entry(of_this_machine(), "login_link.create", f"person:{name}"))
    click.echo(f"{settings.console.public_url or runtime.console_url}/login?token={token}")
