"""The command line: commands only. Whatever is heavy is imported inside its command.

Exit codes: 0 done, 1 not achieved, 2 usage.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor import __version__

if TYPE_CHECKING:
    from monitor.client import Client
    from monitor.settings import Settings

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
FILES = click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


class Commands(click.Group):
    """A group in which an expected fault is one clear line, and exit code 1."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from monitor.faults import EXPECTED

            if not isinstance(error, EXPECTED):
                raise
            click.echo(f"watchkeeper: {error}", err=True)
            context.exit(1)


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="watchkeeper")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file (or WATCHKEEPER_CONFIG).")
@click.option("--data", type=click.Path(path_type=Path), help="Data folder (or WATCHKEEPER_DATA).")
@click.pass_context
def main(context: click.Context, config: Path | None, data: Path | None) -> None:
    """Watch autonomous AI agents: telemetry in, alerts out, and a stop that proves itself."""
    context.obj = {"config": config, "data": data}


def _settings(context: click.Context) -> Settings:
    from monitor.settings import load

    return load(context.obj["config"], data=context.obj["data"])


def _client(context: click.Context) -> Client:
    from monitor.client import Client

    return Client.find(_settings(context).data)


@main.command()
@click.pass_context
def serve(context: click.Context) -> None:
    """Run the daemon until Ctrl-C or SIGTERM."""
    from monitor import daemon
    from monitor.runtime import Runtime

    def announce(runtime: Runtime, login: str) -> None:
        click.echo(f"events   {runtime.edge_url}/v1/events (OTLP: {runtime.edge_url})")
        click.echo(f"console  {runtime.console_url}")
        click.echo(f"sign in  {login}")

    daemon.serve(_settings(context), announce)


@main.command()
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


@main.command()
@FILES
@click.option("--live", is_flag=True, help="Treat the events as happening now: they may page and stop.")
@AS_JSON
@click.pass_context
def replay(context: click.Context, files: tuple[Path, ...], live: bool, as_json: bool) -> None:
    """Send recorded NDJSON (gzip too) to the running daemon.

    The events are marked, so that nothing they cause pages or stops anybody, unless --live.
    Exit code 1 if any event was refused.
    """
    from monitor.progress import file_progress
    from monitor.sources.file import chunks

    client = _client(context)
    totals = {"accepted": 0, "duplicates": 0, "rejected": 0}
    with file_progress(files) as advance:
        for file in files:
            line = 0
            for lines, behind in chunks(file, 500):
                receipt = client.send(lines, live)
                totals["accepted"] += receipt["accepted"]
                totals["duplicates"] += receipt["duplicates"]
                totals["rejected"] += len(receipt["rejected"])
                for fault in receipt["rejected"]:
                    click.echo(f"{file}:{line + fault['index'] + 1}: {fault['reason']}", err=True)
                line += len(lines)
                advance(file, behind)
    if as_json:
        click.echo(json.dumps(totals))
    else:
        click.echo(
            f"{totals['accepted']} accepted ({totals['duplicates']} of them were there already), "
            f"{totals['rejected']} refused"
        )
    context.exit(1 if totals["rejected"] else 0)


@main.command()
@FILES
@click.option("--rules", type=click.Path(exists=True, path_type=Path), multiple=True, help="Rule files.")
@click.option("--learn/--rules-only", default=True, help="Judge with the learning detectors too.")
@AS_JSON
@click.pass_context
def scan(
    context: click.Context, files: tuple[Path, ...], rules: tuple[Path, ...], learn: bool, as_json: bool
) -> None:
    """Judge recorded NDJSON (gzip too) with no daemon; with --json one object per match.

    Exit code 1 if any line could not be judged.
    """
    from detectors.sigma import load_rules
    from monitor import scan as scanning
    from monitor.events import rule_fields
    from monitor.progress import file_progress
    from monitor.tables import findings_page, show

    settings = _settings(context)
    loaded = load_rules(list(rules) or settings.detection.rules, rule_fields())
    refused = []

    def reject(file: Path, fault: Any) -> None:
        refused.append(fault)
        click.echo(f"{file}:{fault.index + 1}: {fault.reason}", err=True)

    with file_progress(files) as advance:
        found = []
        for finding in scanning.scan(settings, loaded, files, reject, advance, learn):
            match = scanning.as_match(finding)
            if as_json:
                click.echo(json.dumps(match))
            else:
                found.append(match)
    if not as_json:
        show(findings_page(found))
    context.exit(1 if refused else 0)


@main.group()
def alerts() -> None:
    """List alerts, or show one."""


@alerts.command("list")
@click.option(
    "--status",
    type=click.Choice(["new", "acknowledged", "in_progress", "closed"]),
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

    found = list(_client(context).alerts(status=status, level=level, agent=agent))
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

    found = _client(context).get(f"/api/v1/alerts/{quote(alert_id, safe='')}")
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(alert_page(found))


@main.command()
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

    client = _client(context)
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


@main.command()
@AS_JSON
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show the daemon's processes, lag, deliveries and detectors; exit code 1 if one is late."""
    from monitor.tables import show, status_page

    found = _client(context).get("/api/v1/status")
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(status_page(found))
    context.exit(0 if found["ready"] else 1)


@main.command()
@AS_JSON
@click.pass_context
def check(context: click.Context, as_json: bool) -> None:
    """Validate settings and rules, run the rules' own tests, print the settings in force."""
    from monitor.checking import check as examine
    from monitor.tables import check_page, show

    found = examine(_settings(context))
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(check_page(found))
    context.exit(0 if found["ok"] else 1)


@main.group()
def bench() -> None:
    """Measure this machine; every figure in docs/benchmarks.md comes from here."""


@bench.command("ingest")
@click.option("--events", default=100_000, show_default=True, help="How many events to send.")
@click.option("--batch", default=500, show_default=True, help="Events per request.")
@click.option("--senders", default=4, show_default=True, help="Connections that send at once.")
@AS_JSON
@click.pass_context
def bench_ingest(context: click.Context, events: int, batch: int, senders: int, as_json: bool) -> None:
    """Events per second from HTTP to answered, judged and stored, by a daemon of its own."""
    from monitor.bench import ingest
    from monitor.tables import facts, show

    found = ingest(events, batch, senders)
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(facts(found["events_per_second"].items()))
        show(facts([("events per request", batch), ("peak RSS, MB", found["peak_rss_mb"])]))


@main.command()
@click.pass_context
def login(context: click.Context) -> None:
    """Print a one-time link to sign in to the console of this machine's daemon."""
    from monitor.runtime import read_runtime
    from monitor.store.state import State
    from monitor.web.auth import create_login_link

    settings = _settings(context)
    runtime = read_runtime(settings.data)
    if runtime is None:
        raise click.ClickException(f"no daemon runs on {settings.data}; start one with `watchkeeper serve`")
    token = create_login_link(State(settings.state_file), "admin")
    click.echo(f"{settings.console.public_url or runtime.console_url}/login?token={token}")


@main.group()
def keys() -> None:
    """Create, list and revoke API keys of senders and programs."""


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["ingest", "replay", "read", "operate"]),
    default=("ingest",),
    show_default=True,
    help="What it may do; several are allowed.",
)
@click.option("--tenant", default="default", show_default=True, help="What the key may speak for.")
@click.option("--agent", "agents", multiple=True, help="Tie the key to these agents only.")
@AS_JSON
@click.pass_context
def keys_create(
    context: click.Context,
    name: str,
    scopes: tuple[str, ...],
    tenant: str,
    agents: tuple[str, ...],
    as_json: bool,
) -> None:
    """Create a key and print it once; only its hash is kept."""
    from monitor.sources.keys import LOCAL, Keys

    if name == LOCAL:
        raise click.UsageError(f"{LOCAL!r} is the name of this machine's own key; choose another")
    key_id, secret = Keys(_state(context)).create(name, tenant, agents, scopes)
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

    found = Keys(_state(context)).list()
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(keys_table(found))


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@click.pass_context
def keys_revoke(context: click.Context, key_id: str) -> None:
    """Revoke a key; the edge refuses it within two seconds."""
    from monitor.sources.keys import Keys

    if not Keys(_state(context)).revoke(key_id):
        raise click.ClickException(f"no key {key_id!r} is in force; `watchkeeper keys list` shows them")


def _state(context: click.Context) -> Any:
    from monitor.store.migrate import migrate_state
    from monitor.store.state import State

    settings = _settings(context)
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    migrate_state(settings.state_file)
    return State(settings.state_file)


if __name__ == "__main__":
    sys.exit(main())
