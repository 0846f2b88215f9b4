"""A measurement in a process of its own, with one core and one thread of polars."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any


def apart(module: str, asked: Any) -> Any:
    """What the ``answer`` of ``module`` finds for ``asked``, both plain data.

    Raises RuntimeError with what the process said where it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env={**os.environ, "POLARS_MAX_THREADS": "1"},
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RuntimeError(said[-1] if said else "it ended without a word")
    return json.loads(done.stdout)


def answer(measure: Callable[[Any], Any]) -> None:
    """What such a process does: it takes one core and measures what it was asked for."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(json.dumps(measure(json.load(sys.stdin))))
