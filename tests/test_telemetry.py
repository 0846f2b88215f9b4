"""The log: a JSON object a line whoever speaks, and no control character on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

SPEAK = """
import logging, threading, warnings
from monitor.telemetry import configure, logger
configure("tests")
hostile = "a\\r\\n{}\\x1b[2J\\u202e\\x00"
thread = threading.Thread(target=lambda: logger().warning("own", agent=hostile))
thread.start(); thread.join()
logging.getLogger("library").warning("says %s", hostile)
warnings.warn(hostile)
try:
    raise ValueError(hostile)
except ValueError:
    logging.getLogger("library").exception("failed")
"""


def test_every_line_is_a_json_object_that_names_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", SPEAK], capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in done.stderr.split("\n")[:-1]]
    assert len(records) == 4
    assert {record["process"] for record in records} == {"tests"}
    assert records[0]["agent"] == "a\r\n{}\x1b[2J\u202e\x00"
    assert "ValueError" in records[3]["exception"]


def test_a_terminal_gets_no_sequence_that_somebody_sent() -> None:
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", SPEAK], stderr=theirs, check=True)
    os.close(theirs)
    shown = b""
    while b"ValueError: " not in shown:
        shown += os.read(ours, 65536)
    os.close(ours)
    assert b"[2J" in shown
    assert b"\x1b[2J" not in shown
    assert "\u202e".encode() not in shown
