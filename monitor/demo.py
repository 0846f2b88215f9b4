"""The demo, put together: settings, a daemon, the customer's site, and the story."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
from base64 import b64encode
from pathlib import Path

from monitor.child import daemon
from monitor.client import Client
from monitor.daemon import listen
from monitor.people.sessions import create_login_link
from monitor.settings import SettingsError, load
from monitor.simulation.demo import run_demo
from monitor.simulation.plan import make_plan
from monitor.simulation.reporter import Reporter
from monitor.simulation.result import DemoResult
from monitor.simulation.site import Site
from monitor.sources.keys import Keys
from monitor.store.state import State

MARKER = ".watchkeeper-demo"
"""Stands in a folder that a demo made, and that the next demo may therefore empty."""

SETTINGS = """\
# The demo's settings. Unlike the defaults they let rules stop agents.
data = {data}

[edge]
port = 0

[console]
port = {port}

[containment]
mode = "enforce"
grace_seconds = 3
max_stops_per_hour = 10

[[containment.endpoints]]
name = "site"
url = {url}
secrets = [{secret}]
allow_private = true
"""


def show(seed: int, once: bool, quiet: bool, data: Path | None) -> DemoResult:
    """Run the demo in ``data`` (``demo-data`` by default); its result.

    Raises SettingsError where the folder holds something that no demo made.
    """
    # a terminal that hangs up must end the daemon and the fleet as Ctrl-C does
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    home = (data or Path("demo-data")).absolute()
    empty(home)
    report = Reporter(quiet)
    plan = make_plan(seed)
    secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
    with contextlib.closing(Site(plan, secret, run=secrets.token_hex(4))) as site:
        config = _write_settings(home, site.open(), secret, port=0 if once else usual_port())
        with daemon(config, home / "data", home / "daemon.log") as runtime:
            state = State(home / "data" / "state.db")
            _, key = Keys(state).create("fleet")
            if not once:
                token = create_login_link(state, "admin")
                report.heading(f"Sign in to the queue: {runtime.console_url}/login?token={token}")
            state.close()
            client = Client(runtime.console_url, runtime.edge_url, runtime.token)
            return run_demo(runtime.edge_url, client, plan, site, report, folder=home, key=key, once=once)


def usual_port() -> int:
    """The console's usual port, or 0 (any) where something else listens there."""
    usual = load().console
    try:
        listen(usual.host, usual.port, "console").close()
    except OSError:
        return 0
    return usual.port


def empty(home: Path) -> None:
    """Make the folder anew, if it is not there or was a demo's."""
    if home.exists() and any(home.iterdir()) and not (home / MARKER).exists():
        raise SettingsError(
            f"{home} holds something that is not a demo's; choose another: watchkeeper --data FOLDER demo"
        )
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, mode=0o700)
    (home / MARKER).touch()


def _write_settings(home: Path, url: str, secret: str, port: int) -> Path:
    config = home / "watchkeeper.toml"
    text = SETTINGS.format(
        data=json.dumps(str(home / "data")), port=port, url=json.dumps(url), secret=json.dumps(secret)
    )
    with open(os.open(config, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(text)
    return config
