"""What every process does the same way: begin, show signs of life, end when told or orphaned."""

from __future__ import annotations

import fcntl
import gc
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn

from monitor.processes.connections import Guard, GuardedProtocol, Limits
from monitor.runtime import TAKE_OVER_SECONDS, process_lock
from monitor.settings import Settings
from monitor.store.heartbeat import beat
from monitor.store.state import State
from monitor.telemetry import configure, logger

BEAT_SECONDS = 1.0

ORPHAN_SECONDS = 5.0
"""How long a process whose supervisor is gone may go on draining."""

YOUNG_OBJECTS = (50_000, 20, 20)
"""Thresholds of the garbage collector, as gc.set_threshold takes them."""

Vitals = Callable[[], tuple[dict[str, float], dict[str, Any]]]
"""Gives a process's counters, and details for people."""


def calm() -> None:
    """Collect garbage seldom: batches make young objects by the ten thousand, and looking at the
    lasting ones again gains nothing.
    """
    gc.freeze()
    gc.set_threshold(*YOUNG_OBJECTS)


def begin(settings: Settings, name: str) -> threading.Event:
    """Set up logging and signals; the returned event is set when the process should end.

    Waits until a predecessor that is still draining has let go: one edge, one detection
    and one console to a data folder. Raises TimeoutError where it does not let go.
    """
    configure(name)
    calm()
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_end_when_orphaned, name="lifeline", daemon=True).start()
    lock = os.open(process_lock(settings.data, name), os.O_RDWR | os.O_CREAT, 0o600)
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
            if stop.wait(0.05):
                raise SystemExit(0) from None
    return stop


def _end_when_orphaned() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        logger().error("the supervisor is gone; ending")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_SECONDS)
        # What has been answered is on disk, and the next daemon waits for this process to end.
        logger().error("not ended in time; leaving the rest to the next daemon", seconds=ORPHAN_SECONDS)
        os._exit(1)


def show_life(state: State, name: str, vitals: Vitals, stop: threading.Event) -> threading.Thread:
    """Write a heartbeat every second, from a thread of its own, until ``stop``."""

    def run() -> None:
        failing = ending = False
        while True:
            try:
                metrics, detail = vitals()
                # the last sign of life says that silence is meant
                beat(state, name, metrics, {**detail, "ending": ending})
                failing = False
            except Exception:
                if not failing:  # once, not every second: the log may lie on the disk that is full
                    logger().exception("heartbeat failed; the console will show this process as late")
                failing = True
            if ending:
                return
            ending = stop.wait(BEAT_SECONDS)

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    return thread


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to ``begin``: Ctrl-C goes to the supervisor alone.

    ``guard`` counts its connections.
    """

    def __init__(self, config: uvicorn.Config, guard: Guard) -> None:
        super().__init__(config)
        self.guard = guard

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def web_server(app: Any, drain_seconds: int, limits: Limits | None = None) -> Server:
    """A server for ``app``; requests in flight at the end get ``drain_seconds``."""
    guard = Guard(limits or Limits())
    config = uvicorn.Config(
        app,
        http=partial(GuardedProtocol, guard),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=math.ceil(guard.limits.idle_seconds),
        timeout_graceful_shutdown=drain_seconds,
    )
    return Server(config, guard)
