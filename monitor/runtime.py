"""Where the running daemon can be reached: a file in the data folder that only its owner reads."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

TAKE_OVER_SECONDS = 30.0
"""How long the processes of an earlier daemon may take to let go of the folder."""


class DaemonRunning(Exception):  # noqa: N818 - it states a fact, and the CLI shows it as one
    """Another daemon holds the data folder."""


class Runtime(msgspec.Struct, frozen=True):
    """Addresses of a running daemon, and a key for commands on the same machine."""

    pid: int
    edge_url: str
    console_url: str
    token: str


def runtime_file(data: Path) -> Path:
    """The file's place."""
    return data / "daemon.json"


def write_runtime(data: Path, runtime: Runtime) -> None:
    """Publish where the daemon is, readable by its owner alone."""
    path = runtime_file(data)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(msgspec.to_builtins(runtime), file)


def read_runtime(data: Path) -> Runtime | None:
    """The running daemon of this folder, or None; what a killed one left behind counts as None."""
    try:
        runtime = msgspec.json.decode(runtime_file(data).read_bytes(), type=Runtime)
        os.kill(runtime.pid, 0)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError, msgspec.DecodeError):
        return None
    except PermissionError:
        raise DaemonRunning(f"{data} belongs to somebody else; run this as the daemon's user") from None
    return runtime


@contextmanager
def sole_owner(data: Path) -> Iterator[None]:
    """Hold the data folder; raises DaemonRunning where somebody else does."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OSError(f"data: {data} cannot be the data folder: {error.strerror}") from None
    if data.stat().st_mode & 0o077:
        data.chmod(0o700)
    with (data / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise DaemonRunning(
                f"{data} is in use by process {lock.read().strip() or 'unknown'}; "
                "stop that daemon, or choose another folder: watchkeeper --data FOLDER serve"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            runtime_file(data).unlink(missing_ok=True)


def await_orphans(data: Path, names: Iterable[str]) -> None:
    """Wait until no process of an earlier supervisor is at work in the folder.

    Killed alone, a supervisor leaves processes that drain by themselves; until they have,
    they hold the listening sockets and the state database. Raises DaemonRunning where one
    does not end.
    """
    deadline = time.monotonic() + TAKE_OVER_SECONDS
    for name in names:
        with process_lock(data, name).open("a") as lock:
            while not _free(lock):
                if time.monotonic() > deadline:
                    raise DaemonRunning(
                        f"the {name} process of an earlier daemon still holds {data}; "
                        "end it, then start again"
                    )
                time.sleep(0.05)


def process_lock(data: Path, name: str) -> Path:
    """The file that the process ``name`` keeps locked while it is at work."""
    return data / f"{name}.lock"


def _free(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
