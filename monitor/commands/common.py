"""What every command does the same way: errors, settings, the daemon, options that many have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from monitor.client import Client
    from monitor.settings import Settings
    from monitor.store.state import State

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
FILES = click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


class Moment(click.ParamType[int]):
    """A date, a time (UTC where it names no offset), or how long ago; microseconds since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        """The moment. Fails as click does."""
        from monitor.moments import microseconds, moment

        if isinstance(value, int):
            return value
        try:
            return microseconds(moment(value))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither a time (2026-11-23T10:00) nor how long ago (7d)", param, context)


class Commands(click.Group):
    """A group in which an expected fault is one clear line, and exit code 1."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from monitor.faults import expected

            if not expected(error):
                raise
            click.echo(f"watchkeeper: {error}", err=True)
            context.exit(1)


def settings_of(context: click.Context) -> Settings:
    """The settings in force."""
    from monitor.settings import load

    return load(context.obj["config"], data=context.obj["data"])


def client_of(context: click.Context) -> Client:
    """The daemon to speak to."""
    from monitor.client import Client

    return Client.find(settings_of(context).data)


def state_of(context: click.Context) -> State:
    """The state database, made or migrated where that is needed."""
    from monitor.store.migrate import migrate_state
    from monitor.store.state import State

    settings = settings_of(context)
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    migrate_state(settings.state_file)
    return State(settings.state_file)
