"""Every segment that a spool ever had, kept by hard links, so that trimming takes nothing from the judge."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from monitor.sources.segment import MAGIC, segment_path, segments


class Archive(threading.Thread):
    """Looks at the spool all the time; a link shows what is appended to the segment later."""

    def __init__(self, spool: Path, folder: Path) -> None:
        super().__init__(name="archive", daemon=True)
        self.spool = spool
        self.folder = folder
        self._over = threading.Event()
        folder.mkdir()

    def run(self) -> None:
        while not self._over.wait(0.02):
            self.look()

    def look(self) -> None:
        """Link what is new. The number of an empty segment may come again, that of another never."""
        for number in segments(self.spool):
            there, kept = segment_path(self.spool, number), segment_path(self.folder, number)
            with contextlib.suppress(FileNotFoundError):
                if not kept.exists():
                    kept.hardlink_to(there)
                elif not kept.samefile(there):
                    assert len(kept.read_bytes()) <= len(MAGIC), f"segment {number} came a second time"
                    kept.unlink()
                    kept.hardlink_to(there)

    def close(self) -> None:
        """A last look; then every segment but an empty last one is there, whole."""
        self._over.set()
        self.join()
        self.look()
        for number in segments(self.folder):
            if segment_path(self.folder, number).stat().st_size <= len(MAGIC):
                segment_path(self.folder, number).unlink()
