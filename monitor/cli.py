"""The command line's entry: the group of all commands (monitor/commands/).

Exit codes: 0 done, 1 not achieved, 2 usage.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from monitor import __version__
from monitor.commands import (
    agents,
    alerts,
    backtest,
    bench,
    changes,
    daemon,
    data,
    deadletters,
    follow,
    hunt,
    incidents,
    keys,
    people,
    rules,
    stops,
)
from monitor.commands.common import CONTEXT, Commands


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="watchkeeper")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file (or WATCHKEEPER_CONFIG).")
@click.option("--data", type=click.Path(path_type=Path), help="Data folder (or WATCHKEEPER_DATA).")
@click.pass_context
def main(context: click.Context, config: Path | None, data: Path | None) -> None:
    """Watch autonomous AI agents: telemetry in, alerts out, and a stop that proves itself."""
    context.obj = {"config": config, "data": data}


for command in (
    *(daemon.serve, daemon.demo, daemon.check, daemon.reload, daemon.status, daemon.login),
    *(follow.follow, data.replay, data.scan, backtest.backtest, deadletters.deadletters),
    *(
        alerts.alerts,
        incidents.incidents,
        stops.kill,
        changes.change,
        keys.keys,
        agents.agents,
        people.people,
        people.audit,
        rules.rules,
        bench.bench,
    ),
):
    main.add_command(command)
rules.rules.add_command(hunt.hunt)


if __name__ == "__main__":
    sys.exit(main())
