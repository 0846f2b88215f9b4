"""Dead letters: what was refused, and sending it again."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from monitor.commands.common import AS_JSON, Moment, client_of

if TYPE_CHECKING:
    from monitor.client import Client

REASON = click.option("--reason", help="Only those whose reason holds this text.")
KEY = click.option("--key", help="Only those of the key with this id.")
AT_ONCE = 200
"""Letters sent again by one call."""

SINCE = click.option("--since", type=Moment(), help="Only newer ones: 90m, 24h, 7d, or a date and time.")


@click.group()
def deadletters() -> None:
    """List, show, download and replay what was refused."""


@deadletters.command("list")
@REASON
@KEY
@SINCE
@click.option("--limit", default=100, show_default=True, help="How many at most.")
@AS_JSON
@click.pass_context
def deadletters_list(
    context: click.Context, reason: str | None, key: str | None, since: int | None, limit: int, as_json: bool
) -> None:
    """List dead letters, newest first."""
    found = [*islice(client_of(context).dead_letters(reason=reason, key=key, since=since), limit)]
    if as_json:
        click.echo(json.dumps(found))
        return
    from monitor.commands.pages import letters_table
    from monitor.tables import show

    show(letters_table(found))


@deadletters.command("show")
@click.argument("letter_id", metavar="ID")
@AS_JSON
@click.pass_context
def deadletters_show(context: click.Context, letter_id: str, as_json: bool) -> None:
    """Show one dead letter: why it was refused, and what was sent."""
    from urllib.parse import quote

    found = client_of(context).get(f"/api/v1/dead-letters/{quote(letter_id, safe='')}")
    if as_json:
        click.echo(json.dumps(found))
        return
    from monitor.commands.pages import letter_page
    from monitor.tables import show

    show(letter_page(found))


@deadletters.command("download")
@REASON
@KEY
@SINCE
@click.option(
    "--raw", is_flag=True, help="Only the refused events themselves: mend them, then replay the file."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File; default stdout.")
@click.pass_context
def deadletters_download(
    context: click.Context,
    reason: str | None,
    key: str | None,
    since: int | None,
    raw: bool,
    output: Path | None,
) -> None:
    """Write dead letters, whole, as NDJSON, newest first."""
    client = client_of(context)
    lines = client.lines("/api/v1/dead-letters/download", reason=reason, key=key, since=since)
    target: AbstractContextManager[IO[bytes]] = (
        output.open("wb") if output else nullcontext(sys.stdout.buffer)
    )
    with target as file:
        for line in lines:
            if not raw:
                file.write(line.encode() + b"\n")
            elif (event := _event(json.loads(line))) is not None:
                file.write(event + b"\n")


def _event(letter: dict[str, Any]) -> bytes | None:
    """The refused event on one line; None where the letter is of something else."""
    if letter["form"] != "record" or letter["encoding"] != "utf-8" or not letter["raw"]:
        return None
    return str(letter["raw"]).replace("\n", "\t").encode()


@deadletters.command("replay")
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that were not replayed yet.")
@REASON
@KEY
@SINCE
@AS_JSON
@click.pass_context
def deadletters_replay(
    context: click.Context,
    letter_ids: tuple[str, ...],
    everything: bool,
    reason: str | None,
    key: str | None,
    since: int | None,
    as_json: bool,
) -> None:
    """Send dead letters again, after a map, a limit or a key was mended.

    Each goes through the edge as its sender, with the rights that its key has now. What is
    taken is marked, so that replaying it again changes nothing. To mend the data itself:
    `deadletters download --raw`, mend, `watchkeeper replay`. Exit code 1 if any was refused.
    """
    chosen = everything or reason or key or since
    if bool(letter_ids) == bool(chosen):
        raise click.UsageError("name ids, or choose with --all, --reason, --key or --since")
    client = client_of(context)
    ids = list(letter_ids)
    if chosen:
        waiting = client.dead_letters(reason=reason, key=key, since=since, replayed=False)
        ids = [letter["id"] for letter in waiting][::-1]
    outcomes = [
        outcome for begin in range(0, len(ids), AT_ONCE) for outcome in _send(client, ids[begin:][:AT_ONCE])
    ]
    if as_json:
        click.echo(json.dumps(outcomes))
    else:
        for outcome in outcomes:
            if outcome["reason"]:
                click.echo(f"{outcome['id']}: {outcome['reason']}", err=True)
        states = [outcome["state"] for outcome in outcomes]
        counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        click.echo(counted or "no dead letter to replay")
    context.exit(0 if all(outcome["state"] in ("replayed", "already") for outcome in outcomes) else 1)


def _send(client: Client, ids: list[str]) -> list[dict[str, Any]]:
    """Outcomes in the order of ``ids``; where the edge is busy, it is asked again for a minute."""
    from monitor.client import PATIENCE_SECONDS

    done: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        left = [one for one in ids if one not in done or done[one]["state"] == "waiting"]
        outcomes = client.post("/api/v1/dead-letters/replay", {"ids": left})["outcomes"]
        done |= {outcome["id"]: outcome for outcome in outcomes}
        if all(outcome["state"] != "waiting" for outcome in outcomes) or time.monotonic() > deadline:
            return [done[one] for one in dict.fromkeys(ids)]
        time.sleep(1)
