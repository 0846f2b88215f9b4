"""A small disk of its own for a test, so that it can really be full."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20


def free_bytes(folder: Path) -> int:
    """What is left on the disk of ``folder``."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def fill(file: Path, leave: int = 0) -> None:
    """Write ``file`` until only ``leave`` bytes of its disk are free."""
    with file.open("ab", buffering=0) as filler:
        while (rest := free_bytes(file.parent) - leave) > 0:
            try:
                filler.write(b"\1" * min(rest, MIB))
            except OSError:
                return


@contextmanager
def small_disk(mebibytes: int) -> Iterator[Path]:
    """A mounted tmpfs of that size. The test skips where this user may not mount."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder]
        try:
            done = subprocess.run(mount, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("a full disk needs mount(8), which is not here")
        if done.returncode:
            pytest.skip(f"a full disk needs the right to mount: {done.stderr.strip()}")
        try:
            yield Path(folder)
        finally:
            # Lazily: a process that a failing test left behind must not keep the mount for ever.
            subprocess.run(["umount", "--lazy", folder], check=True)
