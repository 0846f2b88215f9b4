"""A Vega-Lite specification as a PNG, by vl-convert in a process of its own.

The library brings a JavaScript engine with it: about 100 MB for the half second that a picture takes,
and none in the processes of the daemon. Nothing is fetched: every address is refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any

SECONDS = 20.0
"""How long a picture may take."""

LONGEST_WAIT = 30.0
"""How long it may wait for the one that is being drawn; there is one at a time."""

SCALE = 2.0
"""Pixels of the picture to one of the chart: sharp on dense screens."""

NICENESS = 10
SIGNATURE = b"\x89PNG\r\n\x1a\n"
LONGEST_WORD = 300

_turn = threading.Lock()


class DrawingError(Exception):
    """There is no picture; the message says why."""


def draw(spec: dict[str, Any], seconds: float = SECONDS) -> bytes:
    """The picture. Raises DrawingError where it fails, takes too long or too many wait."""
    if not _turn.acquire(timeout=LONGEST_WAIT):
        raise DrawingError("too many pictures are asked for; try again later")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "monitor.dashboards.png"],
            input=json.dumps(spec).encode(),
            capture_output=True,
            check=False,
            timeout=seconds,
            env={name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        )
    except subprocess.TimeoutExpired:
        raise DrawingError(f"the picture took longer than {seconds:g} s") from None
    except OSError as error:
        raise DrawingError(f"nothing to draw with: {error.strerror}") from None
    finally:
        _turn.release()
    if done.returncode or not done.stdout.startswith(SIGNATURE):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        word = said[-1][:LONGEST_WORD] if said else f"it ended with code {done.returncode}"
        raise DrawingError(f"the picture failed: {word}")
    return done.stdout


if __name__ == "__main__":
    import vl_convert

    os.nice(NICENESS)
    given = json.load(sys.stdin.buffer)
    sys.stdout.buffer.write(vl_convert.vegalite_to_png(given, scale=SCALE, allowed_base_urls=[]))
