"""Progress bars for long work: on a terminal's stderr, silent elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


@contextmanager
def part_progress(what: str) -> Iterator[Callable[[float], None]]:
    """A bar for work that says how far it is, from 0 to 1."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda part: progress.update(task, completed=part)


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage of some work; call what is given with its name, how much is done, of how much."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: int, of: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=of)
            progress.update(tasks[stage], completed=done)

        yield advance


@contextmanager
def file_progress(files: Sequence[Path]) -> Iterator[Callable[[Path, int], None]]:
    """A bar over the bytes of ``files``; call what is given with a file and how far it was read."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    before = dict.fromkeys(files, 0)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=sum(file.stat().st_size for file in files))

        def advance(file: Path, behind: int) -> None:
            progress.update(task, advance=behind - before[file], description=file.name)
            before[file] = behind

        yield advance


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar over ``total`` things of one kind; call what is given with each one's name."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)

        def advance(name: str) -> None:
            # the name comes from a rule file, and must not be read as markup
            shown = escape("".join(char for char in name[:50] if char.isprintable()))
            progress.update(task, advance=1, description=f"{what} {shown}")

        yield advance
