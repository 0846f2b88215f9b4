"""What every process does the same way: begin, show signs of life, end when told or orphaned."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from monitor.settings import Settings
from monitor.store.heartbeat import beat
from monitor.store.state import State
from monitor.telemetry import configure, logger

TAKE_OVER_SECONDS = 30.0
BEAT_SECONDS = 1.0

Vitals = Callable[[], tuple[dict[str, float], dict[str, Any]]]
"""Gives a process's counters, and details for people."""


def begin(settings: Settings, name: str) -> threading.Event:
    """Set up logging and signals; the returned event is set when the process should end.

    Waits until a predecessor that is still draining has let go: one edge, one detection
    and one console to a data folder. Raises TimeoutError where it does not let go.
    """
    configure(name)
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    lock = os.open(settings.data / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + TAKE_OVER_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"another {name} process still holds {settings.data}; end it, then start again"
                ) from None
            stop.wait(0.05)
    threading.Thread(target=_end_when_orphaned, name="lifeline", daemon=True).start()
    return stop


def _end_when_orphaned() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        logger().error("the supervisor is gone; ending")
        os.kill(os.getpid(), signal.SIGTERM)


def show_life(state: State, name: str, vitals: Vitals, stop: threading.Event) -> threading.Thread:
    """Write a heartbeat every second, from a thread of its own, until ``stop``."""

    def run() -> None:
        while True:
            try:
                metrics, detail = vitals()
                beat(state, name, metrics, detail)
            except Exception:
                logger().exception("heartbeat failed; the console will show this process as late")
            if stop.wait(BEAT_SECONDS):
                return

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    return thread


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to ``begin``: Ctrl-C goes to the supervisor alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def web_server(app: Any, drain_seconds: int) -> Server:
    """A server for ``app``; requests in flight at the end get ``drain_seconds``."""
    return Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=drain_seconds,
        )
    )
