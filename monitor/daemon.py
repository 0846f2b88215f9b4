"""The supervisor: prepares the data folder, starts the three processes, keeps them alive.

Order matters at the end: the edge stops first and seals the spool, detection judges what
is left, and the console stores it. Listening sockets belong to the supervisor, so a
process that is started again finds its callers waiting, not refused.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from monitor.reserve import put_by, release
from monitor.runtime import Runtime, await_orphans, runtime_file, sole_owner, write_runtime
from monitor.settings import Settings
from monitor.telemetry import configure, logger

SPAWN = multiprocessing.get_context("spawn")
"""Never fork: an open chDB hangs in the child."""

STEADY_SECONDS = 30.0
LONGEST_PAUSE = 5.0
DRAIN_SECONDS = 20.0
ORPHANS_SECONDS = 10.0
NAMES = ("edge", "detection", "console")


@dataclass
class Part:
    """One of the three processes and how often it had to be started of late.

    ``rules_hash`` are the rules in force, which it is told when it starts.
    """

    name: str
    target: Callable[..., None]
    arguments: tuple[Any, ...]
    rules_hash: str
    process: BaseProcess | None = None
    started: float = 0.0
    failures: int = 0
    due: float = 0.0

    def start(self) -> None:
        """Start the process."""
        self.process = SPAWN.Process(
            target=self.target, args=(*self.arguments, self.rules_hash), name=f"watchkeeper-{self.name}"
        )
        self.process.start()
        self.started = time.monotonic()

    def keep_alive(self) -> None:
        """Start it again if it ended; after repeated failures, ever later."""
        if self.process is None or self.process.is_alive():
            return
        moment = time.monotonic()
        if self.due == 0.0:
            self.failures = 0 if moment - self.started > STEADY_SECONDS else self.failures + 1
            pause = min(LONGEST_PAUSE, 0.1 * 2**self.failures)
            self.due = moment + pause
            logger().error(
                "a process ended and will be started again",
                part=self.name,
                exit_code=self.process.exitcode,
                pause_seconds=pause,
            )
        if moment >= self.due:
            self.due = 0.0
            self.start()

    def stop(self) -> None:
        """Ask it to drain and end; insist after ``DRAIN_SECONDS``."""
        if self.process is None or not self.process.is_alive():
            return
        self.process.terminate()
        self.process.join(DRAIN_SECONDS)
        if self.process.is_alive():
            logger().error("a process did not end in time and was killed", part=self.name)
            self.process.kill()
            self.process.join()


def listen(host: str, port: int, what: str, patience: float = 0.0) -> socket.socket:
    """A listening socket; one that is in use is waited for, ``patience`` seconds at most.

    Raises OSError whose message names the setting to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + patience
    while True:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(512)
            break
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise OSError(
                    f"cannot listen on {host}:{port} ({error.strerror}); choose another {what}.port"
                ) from None
            time.sleep(0.05)
    sock.set_inheritable(True)
    return sock


def address(sock: socket.socket) -> str:
    """The socket's URL."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    settings: Settings, announce: Callable[[Runtime, str], None], reread: Callable[[], Settings]
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C; SIGHUP takes the rules anew, from ``reread``.

    ``announce`` is called once everything answers, with the addresses and where to sign in: a
    one-time link while nobody has a password or a provider. Raises DaemonRunning, RuleError,
    DialectError, SettingsError or OSError before anything is started where it cannot run as asked.
    """
    from monitor.processes import console, detection, edge
    from monitor.reloading import Reloading

    configure("supervisor")
    os.umask(0o077)  # prompts and secrets lie in the data folder; nobody else reads them
    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # measured: more threads per process gain nothing
    with sole_owner(settings.data):
        await_orphans(settings.data, NAMES)
        # A process that its supervisor had only just started has a port, and no lock yet.
        patience = ORPHANS_SECONDS if runtime_file(settings.data).exists() else 0.0
        prepared = prepare(settings)
        edge_socket = listen(settings.edge.host, settings.edge.port, "edge", patience)
        console_socket = listen(settings.console.host, settings.console.port, "console", patience)
        runtime = Runtime(prepared.pid, address(edge_socket), address(console_socket), prepared.token)
        parts = [
            Part("edge", edge.run, (settings, edge_socket), prepared.rules_hash),
            Part("detection", detection.run, (settings, runtime.console_url), prepared.rules_hash),
            Part("console", console.run, (settings, console_socket), prepared.rules_hash),
        ]

        def taken(rules_hash: str) -> None:
            for part in parts:
                part.rules_hash = rules_hash

        reloading = Reloading(settings, reread, prepared.rules_hash, taken)
        asked = threading.Event()
        signal.signal(signal.SIGHUP, lambda *_: asked.set())
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        try:
            for part in parts:
                part.start()
            write_runtime(settings.data, runtime)
            door = f"{settings.console.public_url or runtime.console_url}/login"
            announce(runtime, f"{door}?token={prepared.login}" if prepared.login else door)
            while not stop.wait(0.1):
                for part in parts:
                    part.keep_alive()
                if asked.is_set() or reloading.changed():
                    asked.clear()
                    reloading.reload()
        finally:
            for part in parts:
                part.stop()


@dataclass(frozen=True)
class Prepared:
    """What the supervisor made before it started anything."""

    pid: int
    token: str
    login: str | None
    rules_hash: str


def prepare(settings: Settings) -> Prepared:
    """Check rules and dialects, migrate the state database, make the local key and a first login link."""
    from monitor.people.accounts import People
    from monitor.people.roles import ADMIN
    from monitor.people.sessions import create_login_link
    from monitor.rulebook import load
    from monitor.sources.dialect_files import load_mappings
    from monitor.sources.keys import Keys
    from monitor.sources.redaction.values import load_key
    from monitor.store.migrate import migrate_state
    from monitor.store.rulesets import RuleSets
    from monitor.store.state import State

    rules = load(settings)
    load_mappings(settings.edge.dialects)
    if settings.redaction.policies:
        load_key(settings.redaction_key)
    release(settings.data)
    RuleSets(settings.rule_sets_folder).put(rules)
    migrate_state(settings.state_file)
    state = State(settings.state_file)
    try:
        token = Keys(state).renew_local()
        login = create_login_link(state, ADMIN) if People(state).first() else None
    finally:
        state.close()
    put_by(settings.data)
    return Prepared(os.getpid(), token, login, rules.hash)
