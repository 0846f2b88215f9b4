"""Recorded events in files: NDJSON, plain or gzip, in chunks of lines."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def chunks(path: Path, lines: int) -> Iterator[tuple[list[bytes], int]]:
    """Up to ``lines`` non-empty lines at a time, and how many bytes of the file are behind.

    Bytes are those on disk, so progress is exact for gzip too. Raises OSError (with
    EOFError turned into it) where the file cannot be read to its end.
    """
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if compressed else raw  # type: ignore[assignment]
        held: list[bytes] = []
        try:
            for line in stream:
                if stripped := line.strip():
                    held.append(stripped)
                if len(held) >= lines:
                    yield held, raw.tell()
                    held = []
        except (EOFError, zlib.error) as error:
            raise OSError(
                f"{path}: the gzip stream is damaged ({error}); what came before was read"
            ) from None
        if held:
            yield held, raw.tell()
