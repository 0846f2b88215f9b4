"""What a power cut leaves of the open segment: it is cut back to what was answered, and reading goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from monitor.sources.spool import (
    MAGIC,
    Entry,
    Position,
    SpoolError,
    SpoolReader,
    SpoolWriter,
    encode,
    is_sealed,
    read_sealed,
    segment_path,
)

TAILS = {
    "zeros": bytes(4096),
    "one zero": b"\0",
    "zeros that end in rubbish": bytes(300) + b"\x07\xff",
    "half a record": encode(Entry.EVENTS, b"never answered")[:-3],
    "a record whose bytes have not arrived": encode(Entry.EVENTS, b"never")[:9] + bytes(5),
    "a length beyond everything": b"\xff\xff\xff\xff" + bytes(40),
}


@contextmanager
def cut(folder: Path) -> Iterator[Path]:
    """A segment with two answered records, whose writer is gone without an orderly end."""
    writer = SpoolWriter(folder)
    for value in (b"one", b"two"):
        writer.append([(Entry.EVENTS, value)])
    writer._lock.close()
    yield segment_path(folder, 1)
    again = SpoolWriter(folder)
    again.append([(Entry.EVENTS, b"three")])
    again.close()


def read(reader: SpoolReader) -> list[bytes]:
    return [record.payload for record in reader.read()]


@pytest.mark.parametrize("tail", TAILS)
def test_a_tail_that_was_never_answered_is_cut_off(tmp_path: Path, tail: str) -> None:
    early = SpoolReader(tmp_path)
    with cut(tmp_path) as path:
        with path.open("ab") as file:
            file.write(TAILS[tail])
        assert read(early) == [b"one", b"two"]
        assert read(early) == []
    assert [record.payload for record in read_sealed(tmp_path, 1)] == [b"one", b"two"]
    assert read(early) == [b"three"]
    assert read(SpoolReader(tmp_path)) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("left", [b"", bytes(3), bytes(len(MAGIC)), bytes(4096), MAGIC[:7] + bytes(13)])
def test_a_segment_that_had_only_just_begun_holds_nothing_and_stops_nobody(
    tmp_path: Path, left: bytes
) -> None:
    with cut(tmp_path) as path:
        with path.open("ab") as file:
            file.write(encode(Entry.SEAL, b""))
        begun = segment_path(tmp_path, 2)
        begun.write_bytes(left)
        reader = SpoolReader(tmp_path, Position(2))
        assert read(reader) == []
    assert is_sealed(begun)
    assert read_sealed(tmp_path, 2) == []
    assert read(reader) == [b"three"]


def test_a_first_line_that_says_something_else_is_for_a_person_to_look_at(tmp_path: Path) -> None:
    segment_path(tmp_path, 1).write_bytes(bytes(len(MAGIC)) + encode(Entry.EVENTS, b"kept"))
    with pytest.raises(SpoolError, match="move it away"):
        SpoolWriter(tmp_path)
