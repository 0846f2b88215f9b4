"""Recorded events in files: NDJSON, plain or gzip, in chunks of lines."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

MOST_BYTES = 4 << 20
"""A chunk is full at this size, whatever the number of its lines."""

MOST_LINE = 16 << 20
"""A longer line is cut here, which makes it no JSON any more: it is refused as one bad line."""


class Chunk(NamedTuple):
    """Lines that are not blank, the number of each in its file, and how many bytes are behind.

    Numbers count from 1. Bytes are those on disk, so progress is exact for gzip too.
    """

    lines: list[bytes]
    numbers: list[int]
    behind: int


def chunks(path: Path, most_lines: int) -> Iterator[Chunk]:
    """The file's lines, up to ``most_lines`` at a time.

    Raises OSError (with EOFError turned into it) where the file cannot be read to its end.
    """
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if compressed else raw  # type: ignore[assignment]
        lines: list[bytes] = []
        numbers: list[int] = []
        size = 0
        try:
            for number, line in enumerate(_lines(stream), 1):
                if not line:
                    continue
                lines.append(line)
                numbers.append(number)
                size += len(line)
                if len(lines) >= most_lines or size >= MOST_BYTES:
                    yield Chunk(lines, numbers, raw.tell())
                    lines, numbers, size = [], [], 0
        except (EOFError, zlib.error) as error:
            raise OSError(
                f"{path}: the gzip stream is damaged ({error}); what came before was read"
            ) from None
        if lines:
            yield Chunk(lines, numbers, raw.tell())


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines without the white space around them, none held beyond ``MOST_LINE``."""
    while line := stream.readline(MOST_LINE):
        yield line.strip()
        while len(line) == MOST_LINE and not line.endswith(b"\n"):
            line = stream.readline(MOST_LINE)
