"""A real daemon, a real `watchkeeper follow`, a writer that rotates, and kills of all of them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.sources.deadreader import newest
from tests.daemons import Daemon, stored_ids, until

ROUNDS = 4


class Writer:
    """Writes numbered lines to a log and rotates it now and then, each way that is common."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir()
        self.log = folder / "agent.log"
        self.random = random.Random(seed)
        self.written = 0
        self.rotations = 0

    def write(self, lines: int) -> None:
        """Lines, the last of them in two pieces."""
        for _ in range(lines):
            event = {"event_type": "tool.executed", "agent_id": "filed-agent", "session_id": "filed"}
            event |= {"timestamp": "2026-01-05T09:30:00Z", "event_id": f"f{self.written:06d}"}
            raw = json.dumps(event).encode() + b"\n"
            with self.log.open("ab") as out:
                out.write(raw[:30])
                out.flush()
                out.write(raw[30:])
            self.written += 1

    def rotate(self) -> None:
        """Move older logs on, then rename the newest, or copy and cut it."""
        self.rotations += 1
        for number in range(self.rotations - 1, 0, -1):
            (self.log.parent / f"agent.log.{number}").rename(self.log.parent / f"agent.log.{number + 1}")
        target = self.log.parent / "agent.log.1"
        if self.random.random() < 0.5:
            self.log.rename(target)
        else:
            target.write_bytes(self.log.read_bytes())
            os.truncate(self.log, 0)


def begin(daemon: Daemon, writer: Writer) -> subprocess.Popen[bytes]:
    with (daemon.data.parent / "follow.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "monitor.cli", "--config", str(daemon.config), "follow", f"{writer.log}*"],
            stderr=log,
        )


@pytest.mark.parametrize("seed", [1])
def test_every_line_is_stored_once_through_rotations_and_kills(tmp_path: Path, seed: int) -> None:
    daemon = Daemon(tmp_path / "data").start()
    writer = Writer(tmp_path / "logs", seed)
    follower = begin(daemon, writer)
    try:
        for turn in range(ROUNDS):
            writer.write(300)
            writer.rotate()
            writer.write(writer.random.randrange(1, 300))
            if turn == 2:
                daemon.kill()
                writer.write(50)
                writer.rotate()
                daemon.start(ready=False)
            elif turn % 2:
                follower.send_signal(signal.SIGKILL)
                follower.wait(10)
                writer.write(100)
                writer.rotate()
                follower = begin(daemon, writer)
        with writer.log.open("ab") as out:
            out.write(b"not an event\n")
        until(lambda: daemon.metrics()["edge"]["edge_rejected_total"] >= 1, "the last line is refused", 60)
        follower.terminate()
        assert follower.wait(30) == 0
    finally:
        follower.kill()
        daemon.stop()
    wanted = [f"f{number:06d}" for number in range(writer.written)]
    assert stored_ids(daemon.data) == wanted
    assert {kept.letter.raw for kept in newest(daemon.data / "dead-letters")} == {"not an event"}
