"""A genuine ClickHouse server for tests: its own process, which may be killed and started again.

The library (tests/fetch-clickhouse) runs ClickHouse's own HTTP listener within clickhouse-local.
Run as a program it is that server.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.daemons import until

LIBRARY = Path(__file__).parents[1] / ".venv" / "clickhouse" / "libchdb.so"
USER, PASSWORD = "watchkeeper", "pa ss/wo:rd"

FOREVER = (
    "SYSTEM START LISTEN HTTP; SELECT sleepEachRow(3) FROM numbers(10000000) FORMAT Null "
    "SETTINGS function_sleep_max_microseconds_per_block = 0, max_block_size = 1"
)
_USER = (
    "<{0}><password>{1}</password><networks><ip>::/0</ip></networks>"
    "<profile>default</profile><quota>default</quota></{0}>"
)
_CONFIG = (
    "<clickhouse><logger><level>error</level></logger><user_directories><users_xml><path>{users}</path>"
    "</users_xml></user_directories></clickhouse>"
)


class ClickHouse:
    """One data folder and, while it runs, the server on it; the port stays the same."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        if not LIBRARY.exists():
            pytest.skip("no ClickHouse server: tests/fetch-clickhouse could not get its package")
        self.folder = folder
        self.data = data or folder / "data"
        folder.mkdir(parents=True, exist_ok=True)
        users = folder / "users.xml"
        # the local session of the process itself is `default`
        both = _USER.format("default", "") + _USER.format(USER, PASSWORD)
        users.write_text(
            f"<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users>{both}</users></clickhouse>"
        )
        (folder / "config.xml").write_text(_CONFIG.format(users=users))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """Its address, without user and password."""
        return f"clickhouse://127.0.0.1:{self.port}/watchkeeper"

    def settings(self, database: str = "watchkeeper") -> dict[str, str]:
        """The section ``store`` of the settings."""
        dsn = f"clickhouse://127.0.0.1:{self.port}/{database}"
        return {"dsn": dsn, "user": USER, "password": PASSWORD}

    def start(self) -> ClickHouse:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "tests.clickhouse_server", str(LIBRARY), str(self.data)]
            self.process = subprocess.Popen(
                [*command, str(self.port), str(self.folder / "config.xml")],
                cwd=LIBRARY.parents[2],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process = self.process
        until(lambda: process.poll() is not None or self.answers(), "the ClickHouse server answers")
        assert process.poll() is None, (self.folder / "log").read_text()[-2000:]
        return self

    def answers(self) -> bool:
        """Whether it speaks HTTP."""
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.port}/ping", timeout=2, trust_env=False).is_success
        return False

    def kill(self) -> None:
        """SIGKILL, as a power cut does."""
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def pause(self, going: bool) -> None:
        """Hold it (SIGSTOP) or let it go on."""
        assert self.process
        os.killpg(self.process.pid, signal.SIGCONT if going else signal.SIGSTOP)


@contextlib.contextmanager
def clickhouse(folder: Path, data: Path | None = None) -> Iterator[ClickHouse]:
    """A server that runs within the block."""
    server = ClickHouse(folder, data)
    try:
        yield server.start()
    finally:
        if server.process and server.process.poll() is None:
            server.kill()


def _end_with_the_tests() -> None:
    """No killed test run leaves a server behind: its end of the pipe closes with it."""
    sys.stdin.buffer.read()
    os._exit(1)


def main(library: str, path: str, port: str, config: str) -> None:
    """Be the server until killed."""
    arguments = [
        "clickhouse",
        "--path",
        path,
        "--http_port",
        port,
        "--config-file",
        config,
        "--query",
        FOREVER,
    ]
    threading.Thread(target=_end_with_the_tests, daemon=True).start()
    encoded = [argument.encode() for argument in arguments]
    loaded = ctypes.CDLL(library)
    loaded.query_stable_v2.restype = ctypes.c_void_p
    loaded.query_stable_v2(len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))


if __name__ == "__main__":
    main(*sys.argv[1:])
