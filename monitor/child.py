"""A daemon as a child process of a command: for the demo and the benchmarks."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from monitor.runtime import Runtime, read_runtime

START_SECONDS = 60.0
STOP_SECONDS = 60.0


class DaemonFailed(Exception):  # noqa: N818 - it states a fact, and the CLI shows it as one
    """The child did not become ready; the message names its log."""


@contextlib.contextmanager
def daemon(config: Path, data: Path, log: Path) -> Iterator[Runtime]:
    """Run ``watchkeeper serve`` on ``config`` within the block, ready when the block begins.

    Raises DaemonFailed where it ends early or is not ready within a minute.
    """
    with log.open("ab") as sink:
        child = subprocess.Popen(
            [sys.executable, "-m", "monitor.cli", "--config", str(config), "serve"],
            stdout=subprocess.DEVNULL,
            stderr=sink,
            env={k: v for k, v in os.environ.items() if not k.startswith("WATCHKEEPER_")},
            start_new_session=True,
        )
    try:
        yield _wait_until_ready(child, data, log)
    finally:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()


def _wait_until_ready(child: subprocess.Popen[bytes], data: Path, log: Path) -> Runtime:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise DaemonFailed(f"the daemon ended with exit code {child.returncode}; {log} says why")
        runtime = read_runtime(data)
        if runtime is not None and runtime.pid == child.pid:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{runtime.console_url}/readyz", trust_env=False).status_code == 200:
                    return runtime
        time.sleep(0.05)
    raise DaemonFailed(f"the daemon was not ready within {START_SECONDS:.0f} s; {log} says why")
