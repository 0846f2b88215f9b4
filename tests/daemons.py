"""A real daemon for tests: `watchkeeper serve` as its own process on a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx

from monitor.client import Client
from monitor.runtime import Runtime, read_runtime

T = TypeVar("T")


def until(look: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """Look again and again until the answer is truthy; fail with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := look():
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Daemon:
    """One data folder and, while it runs, the daemon on it."""

    def __init__(self, data: Path, settings: str = "", edge_port: int = 0, console_port: int = 0) -> None:
        self.data = data
        data.mkdir(parents=True, exist_ok=True)
        self.config = data.parent / f"{data.name}.toml"
        self.config.write_text(
            f"data = {json.dumps(str(data))}\n"
            f"[edge]\nport = {edge_port}\n[console]\nport = {console_port}\n" + settings
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data.parent / f"{data.name}.log"

    def spawn(self) -> subprocess.Popen[bytes]:
        """Begin to start it, and wait for nothing."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "monitor.cli", "--config", str(self.config), "serve"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    def start(self, ready: bool = True) -> Daemon:
        """Start it and wait until all three processes are ready, or at least answer."""
        process = self.spawn()

        def announced() -> Runtime | None:
            runtime = read_runtime(self.data)
            return runtime if runtime and runtime.pid == process.pid else None

        until(lambda: process.poll() is not None or announced(), "the daemon's addresses")
        assert process.poll() is None, self.log.read_text()
        runtime = announced()
        assert runtime
        self.runtime = runtime
        self.client = Client.find(self.data)
        look = self.ready if ready else self.answers
        until(lambda: process.poll() is not None or look(), f"it ready; see {self.log.read_text()[-2000:]}")
        return self

    def ready(self) -> bool:
        """Whether /readyz says so."""
        with contextlib.suppress(Exception):
            return bool(self.client.get("/readyz"))
        return False

    def answers(self) -> bool:
        """Whether its HTTP sides speak at all."""
        with contextlib.suppress(httpx.HTTPError):
            urls = (self.runtime.console_url, self.runtime.edge_url)
            return all(httpx.get(f"{url}/healthz", trust_env=False).is_success for url in urls)
        return False

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command against this daemon; its stdout."""
        done = subprocess.run(
            [sys.executable, "-m", "monitor.cli", "--config", str(self.config), *arguments],
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == code, (
            done.returncode,
            done.stdout,
            done.stderr,
            self.log.read_text()[-3000:],
        )
        return done.stdout

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The same, with --json, decoded."""
        return json.loads(self.run(*arguments, "--json", code=code))

    def metrics(self) -> dict[str, dict[str, float]]:
        """Counters by process."""
        return {p["name"]: p["metrics"] for p in self.client.get("/api/v1/status")["processes"]}

    def stop(self) -> None:
        """SIGTERM, and wait for the orderly end."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def kill(self) -> None:
        """SIGKILL to every process at once, as a power cut does."""
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@contextlib.contextmanager
def running(data: Path, settings: str = "", ready: bool = True) -> Iterator[Daemon]:
    """A daemon that runs within the block."""
    daemon = Daemon(data, settings)
    try:
        yield daemon.start(ready)
    finally:
        daemon.stop()
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()


def stored_ids(data: Path) -> list[str]:
    """Every event id in the embedded ClickHouse of a stopped daemon, sorted."""
    program = (
        "import sys, json; from pathlib import Path; from monitor.settings import load;"
        "from monitor.store.clickhouse import EventStore;"
        "store = EventStore.open(load(data=Path(sys.argv[1])));"
        "rows = store.writer.query('SELECT event_id FROM events ORDER BY event_id').result_columns;"
        "print(json.dumps(rows[0] if rows else []))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(data)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    ids: list[str] = json.loads(done.stdout.splitlines()[-1])
    return ids
