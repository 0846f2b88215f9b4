"""What a power cut may leave beyond what was synced: tails of zeros or rubbish, files without their bytes."""

from __future__ import annotations

from pathlib import Path
from random import Random

from monitor.sources.segment import MAGIC, is_sealed, segment_path, segments


def leave_traces(data: Path, rng: Random) -> None:
    """Harm only what no answer stood for: the open segment's tail, a file just begun, one snapshot."""
    _harm_spool(data / "spool", rng)
    snapshots = sorted((data / "snapshots").glob("*.snapshot"))
    if len(snapshots) > 1:
        _harm_snapshot(snapshots[-1], rng)


def _harm_spool(spool: Path, rng: Random) -> None:
    numbers = segments(spool)
    if not numbers:
        return
    last = segment_path(spool, numbers[-1])
    if is_sealed(last):
        segment_path(spool, numbers[-1] + 1).write_bytes(bytes(rng.choice([0, 7, len(MAGIC), 4096])))
        return
    with last.open("ab") as file:
        file.write(rng.choice([bytes(rng.randint(1, 9000)), rng.randbytes(rng.randint(1, 900))]))


def _harm_snapshot(newest: Path, rng: Random) -> None:
    raw = newest.read_bytes()
    torn = raw[: rng.randint(0, len(raw) - 1)] if raw else raw
    newest.write_bytes(rng.choice([b"", torn, torn + bytes(len(raw) - len(torn))]))
