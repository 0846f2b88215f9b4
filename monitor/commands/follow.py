"""Files that grow, followed into the running daemon."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from monitor.commands.common import settings_of

MOST_TOLD = 100
"""Refused lines told one by one in the time of ``MOMENT`` seconds; the others are only counted."""

MOMENT = 10.0

SENTENCES = {
    "opened": "followed from byte {offset}",
    "copy": "goes on where its twin stood, at byte {offset}",
    "rotated": "has lost its name; read to its end ({unread} bytes are left)",
    "truncated": "was cut or replaced, and is read from its start ({unread} bytes were not read before)",
    "compressed": "is packed and left alone; `watchkeeper replay` sends such a file",
    "unreadable": "{why}; looked for again",
    "unfinished": "the last line, at byte {offset}, has no end yet and was left",
    "refused": "byte {offset}: {reason}",
    "more": "{count} more lines were refused; `watchkeeper deadletters list` shows them",
    "waiting": "nothing can be sent now, trying again in {seconds:g} s: {why}",
    "status": "{files} files; {accepted} accepted ({duplicates} were there already), {rejected} refused",
}


class Teller:
    """Says what happens: a JSON object a line on stdout, or sentences on stderr."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()
        self._told = 0

    def __call__(self, what: str, path: Path | None, **facts: Any) -> None:
        """Tell one thing; of very many refused lines only the number."""
        if what == "refused" and not self._few():
            return
        if self._as_json:
            named = {"file": str(path)} if path else {}
            click.echo(json.dumps({"at": time.time(), "what": what, **named, **facts}))
        elif not (what == "status" and facts["idle"]):
            head = f"{printable(str(path))}: " if path else "watchkeeper: "
            click.echo(head + printable(SENTENCES[what].format(**facts)), err=True)

    def _few(self) -> bool:
        if time.monotonic() - self._began > MOMENT:
            self.finish()
            self._began = time.monotonic()
        self._told += 1
        return self._told <= MOST_TOLD

    def finish(self) -> None:
        """Say how many refused lines were not told one by one."""
        left, self._told = self._told - MOST_TOLD, 0
        if left > 0:
            self("more", None, count=left)


def printable(text: str) -> str:
    """Text for a terminal: file names may hold anything."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


@click.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--live/--replay", default=True, help="Replayed events are marked and stop nobody.")
@click.option(
    "--once", is_flag=True, help="Read to the end and leave; exit code 1 if a line or file was refused."
)
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path), help="Where it is kept how far.")
@click.option(
    "--from-start/--from-end", default=True, help="Where files begin that are there at the very first start."
)
@click.option("--json", "as_json", is_flag=True, help="Say what happens as JSON lines on stdout.")
@click.pass_context
def follow(
    context: click.Context,
    paths: tuple[str, ...],
    live: bool,
    once: bool,
    state: Path | None,
    from_start: bool,
    as_json: bool,
) -> None:
    """Send NDJSON files to the running daemon, and go on as they grow and are rotated.

    PATHS are files or quoted patterns ('logs/**/*.ndjson'). How far each was read is kept, so
    a restart goes on from there; each line arrives once. Ends on Ctrl-C or SIGTERM.
    """
    import signal
    import threading

    from monitor.client import Client
    from monitor.sources.follow.files import Files
    from monitor.sources.follow.follower import Follower
    from monitor.sources.follow.place import PlaceFile

    settings = settings_of(context)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    tell = Teller(as_json)
    places = PlaceFile(state or settings.data / "follow.json")
    files = Files(paths, places, tell, from_end=not from_start, once=once)
    totals = Follower(files, lambda: Client.find(settings.data), tell, stop, live, once).run()
    tell.finish()
    tell("status", None, files=len(files), idle=False, **vars(totals))
    context.exit(1 if once and (totals.rejected or files.unreadable or stop.is_set()) else 0)
