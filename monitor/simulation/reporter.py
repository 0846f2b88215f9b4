"""How the demo tells its story on the terminal: calm lines, a bar while history loads.

On a terminal there is colour and a moving last line; elsewhere plain lines. Whatever comes
from an agent is shown as plain text. With ``quiet`` everything goes to stderr, so that
stdout holds the JSON alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.status import Status
from rich.text import Text

from monitor.tables import level, plain

PULSE_SECONDS = 10.0
"""Without a terminal the counters are a line this often."""


class Reporter:
    """Tells the story."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=quiet, soft_wrap=True, highlight=False)
        self._status: Status | None = None
        self._pulsed = 0.0

    def say(self, *parts: str | Text) -> None:
        """One line with the time of day."""
        clock = f"{datetime.now():%H:%M:%S.%f}"[:-4]
        self.console.print(Text.assemble((clock, "dim"), "  ", *parts))

    def heading(self, text: str) -> None:
        """A line that begins a part of the story."""
        self.console.print(Text.assemble("\n", (text, "bold")))

    @contextmanager
    def loading(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar over ``total`` events; call what is given with how many more are done."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(title, total=total)
            yield lambda more: progress.update(task, advance=more)

    def pulse(self, counters: str) -> None:
        """The moving last line: what has come in so far."""
        if self.console.is_terminal:
            if self._status is None:
                self._status = self.console.status("")
                self._status.start()
            self._status.update(Text(counters, style="dim"))
        elif time.monotonic() - self._pulsed > PULSE_SECONDS:
            self._pulsed = time.monotonic()
            self.say(counters)

    def still(self) -> None:
        """End the moving line."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def alert(self, alert: Mapping[str, Any], note: str) -> None:
        """An alert: its level, its agent, its one-sentence reason."""
        self.say(
            "alert  ",
            level(alert["level"]),
            "  ",
            Text(plain(alert["agent_id"]).plain, style="bold"),
            "  ",
            plain(alert["title"], 120),
            Text(f"  {note}" if note else "", style="green"),
        )
        self.console.print(Text.assemble(" " * 13, Text(plain(alert["reason"], 400).plain, style="dim")))

    def order(self, order: Mapping[str, Any], words: str) -> None:
        """An order has moved."""
        style = {"contained": "bold green", "failed": "bold red", "partial": "bold red"}.get(
            order["state"], "bold"
        )
        target = plain(order["session_id"] if order["scope"] == "session" else order["agent_id"])
        what = f"  {order['action']} {order['scope']} "
        self.say("order  ", Text(order["state"], style=style), what, target, "  ", plain(words))

    def verdict(self, word: str, style: str, text: str) -> None:
        """One line of the summary."""
        self.console.print(Text.assemble("  ", (f"{word:8}", style), plain(text)))
