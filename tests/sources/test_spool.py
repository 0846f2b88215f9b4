"""The spool: whole records, in order, whatever happens to writer, disk or machine."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    segments,
    spool_id,
)
from tests.daemons import until
from tests.disks import fill, small_disk


def payloads(folder: Path) -> list[bytes]:
    reader = SpoolReader(folder)
    found: list[bytes] = []
    while records := reader.read():
        found += [record.payload for record in records]
    return found


def write(writer: SpoolWriter, *values: bytes) -> Position:
    return writer.append((Entry.EVENTS, value) for value in values)


def test_what_is_appended_is_read_in_order_across_segments(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, seal_bytes=200)
    sent = [b"%d" % n * 20 for n in range(50)]
    for value in sent:
        write(writer, value)
    assert len(segments(tmp_path)) > 5
    assert payloads(tmp_path) == sent
    writer.close()
    assert payloads(tmp_path) == sent
    assert all(is_sealed(segment_path(tmp_path, n)) for n in segments(tmp_path))


def test_a_reader_goes_on_from_its_position(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    middle = write(writer, b"one", b"two")
    reader = SpoolReader(tmp_path, middle)
    assert reader.read() == []
    write(writer, b"three")
    writer.seal()
    write(writer, b"four")
    assert [record.payload for record in reader.read()] == [b"three", b"four"]
    assert reader.read() == []


def test_a_record_longer_than_the_limit_is_read_whole(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    write(writer, b"x" * 1000, b"y")
    reader = SpoolReader(tmp_path)
    assert [len(record.payload) for record in reader.read(limit=10)] == [1000]
    assert [record.payload for record in reader.read(limit=10)] == [b"y"]


def test_a_torn_tail_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    writer.append([(Entry.TICK, b"12345678")])
    with segment_path(tmp_path, writer.number).open("ab") as file:
        file.write(struct.pack("<IIB", 0xFFFFFFFF, 0, Entry.EVENTS) + b"rubbish")
    tracemalloc.start()
    try:
        assert [record.payload for record in SpoolReader(tmp_path).read(limit=30)] == [b"12345678"]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_sealed_segment_reads_whole_and_damage_is_told(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    write(writer, b"one", b"two")
    writer.close()
    assert [record.payload for record in read_sealed(tmp_path, 1)] == [b"one", b"two"]
    path = segment_path(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[len(MAGIC) + 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(SpoolError, match="damaged"):
        read_sealed(tmp_path, 1)


@pytest.mark.parametrize("at", [0, 4, 8, 10])
def test_damage_before_the_last_segment_stops_the_reader_instead_of_skipping(tmp_path: Path, at: int) -> None:
    writer = SpoolWriter(tmp_path)
    write(writer, b"one")
    write(writer, b"two")
    writer.seal()
    write(writer, b"three")
    path = segment_path(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[len(MAGIC) + len(encode(Entry.EVENTS, b"one")) + at] ^= 0x40
    path.write_bytes(data)
    reader = SpoolReader(tmp_path)
    assert [record.payload for record in reader.read()] == [b"one"]
    with pytest.raises(SpoolError, match="damaged"):
        reader.read()


def test_a_missing_segment_is_told_but_a_trimmed_beginning_is_not(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    for value in (b"one", b"two", b"three"):
        write(writer, value)
        writer.seal()
    segment_path(tmp_path, 1).unlink()
    assert payloads(tmp_path) == [b"two", b"three"]
    segment_path(tmp_path, 2).unlink()
    with pytest.raises(SpoolError, match="missing"):
        SpoolReader(tmp_path, Position(2, len(MAGIC))).read()


def test_a_number_is_never_used_twice_even_when_every_segment_is_gone(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        writer = SpoolWriter(tmp_path)
        write(writer, b"x")
        assert writer.number == number
        writer.close()
        segment_path(tmp_path, number).unlink()


def test_a_record_of_a_newer_version_is_told(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    write(writer, b"one")
    body = bytes([77]) + b"new"
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(struct.pack("<II", 3, zlib.crc32(body)) + body)
    with pytest.raises(SpoolError, match="newer version"):
        payloads(tmp_path)


def test_one_process_writes(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    with pytest.raises(SpoolError, match="another process"):
        SpoolWriter(tmp_path)
    writer.close()
    SpoolWriter(tmp_path).close()


def test_a_spool_keeps_its_identity(tmp_path: Path) -> None:
    SpoolWriter(tmp_path).close()
    first = spool_id(tmp_path)
    SpoolWriter(tmp_path).close()
    assert spool_id(tmp_path) == first
    (tmp_path / "id").write_text("")
    with pytest.raises(SpoolError, match="empty"):
        spool_id(tmp_path)


class Disk:
    """The real disk, but it refuses the next writes, after ``part`` bytes, or the next sync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refuse_sync = False
        self._sync = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self._fdatasync)

    def _fdatasync(self, descriptor: int) -> None:
        if self.refuse_sync:
            raise OSError(errno.EIO, "the disk refuses")
        self._sync(descriptor)


def test_a_refused_sync_keeps_nothing_and_a_reader_that_saw_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    writer = SpoolWriter(tmp_path)
    write(writer, b"one")
    eager = SpoolReader(tmp_path)
    assert len(eager.read()) == 1
    disk.refuse_sync = True
    monkeypatch.setattr(writer, "_cut_back", lambda: None)
    with pytest.raises(OSError, match="refuses"):
        write(writer, b"phantom")
    assert [record.payload for record in eager.read()] == [b"phantom"]
    disk.refuse_sync = False
    write(writer, b"two")
    assert [record.payload for record in eager.read()] == [b"two"]
    assert payloads(tmp_path) == [b"one", b"two"]


def test_a_full_disk_keeps_nothing_and_leaves_no_bytes_behind(tmp_path: Path) -> None:
    """A real refusal: the process may not write a file beyond 4 KiB (RLIMIT_FSIZE)."""
    script = """
import resource, signal, sys
from pathlib import Path
from monitor.sources.spool import Entry, SpoolWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = SpoolWriter(Path(sys.argv[1]))
writer.append([(Entry.EVENTS, b"kept")])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
for attempt in range(3):
    try:
        writer.append([(Entry.EVENTS, b"x" * 10_000)])
    except OSError:
        continue
    sys.exit("the disk was not full")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.append([(Entry.EVENTS, b"later")])
writer.close()
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
    assert payloads(tmp_path) == [b"kept", b"later"]


def test_a_spool_opens_on_a_full_disk_and_goes_on_when_there_is_room() -> None:
    with small_disk(4) as disk:
        folder = disk / "spool"
        crashed = SpoolWriter(folder)
        write(crashed, b"one")
        crashed._lock.close()
        with segment_path(folder, 1).open("ab") as file:
            file.write(b"torn")
        fill(disk / "filler")
        writer = SpoolWriter(folder)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                write(writer, b"x" * 5000)
        (disk / "filler").unlink()
        assert write(writer, b"two").segment == 2
        assert writer.cut == 4
        assert payloads(folder) == [b"one", b"two"]
        fill(disk / "filler")
        writer.close()
        (disk / "filler").unlink()
        again = SpoolWriter(folder)
        write(again, b"three")
        assert payloads(folder) == [b"one", b"two", b"three"]
        again.close()


WRITER = """
import sys
from pathlib import Path
from monitor.sources.spool import Entry, SpoolWriter
writer = SpoolWriter(Path(sys.argv[1]), seal_bytes=50_000)
first = int(sys.argv[2])
for number in range(first, first + 1_000_000):
    writer.append([(Entry.EVENTS, b"%d:" % number + b"x" * (number % 3000)), (Entry.TICK, b"t")])
    print(number, flush=True)
"""


def test_kill_9_in_the_midst_of_appends_loses_no_answered_record_and_repeats_none(tmp_path: Path) -> None:
    first = 0
    for lap in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(first)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        answered = [int(process.stdout.readline()) for _ in range(60 + 37 * lap)]
        os.kill(process.pid, signal.SIGKILL)
        answered += [int(line) for line in process.stdout.read().split("\n") if line.strip()]
        process.wait()
        process.stdout.close()
        kept = [int(p.partition(b":")[0]) for p in payloads(tmp_path) if p != b"t"]
        # All that was answered, at most one that was not, each once and in order.
        assert kept == list(range(len(kept)))
        assert answered[-1] <= kept[-1] <= answered[-1] + 1
        first = kept[-1] + 1
    SpoolWriter(tmp_path).close()
    for number in segments(tmp_path):
        read_sealed(tmp_path, number)


@given(
    values=st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8),
    cut=st.integers(0, 200),
    rubbish=st.binary(max_size=40),
)
@settings(max_examples=150, deadline=None)
def test_whatever_stands_behind_the_last_whole_record_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, values: list[bytes], cut: int, rubbish: bytes
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    writer = SpoolWriter(folder)
    ends = [write(writer, value).offset for value in values]
    path = segment_path(folder, 1)
    torn = max(path.stat().st_size - cut, 0)
    writer._lock.close()
    path.write_bytes(path.read_bytes()[:torn] + rubbish)
    whole = [value for value, end in zip(values, ends, strict=True) if end <= torn]
    if torn < len(MAGIC) and not MAGIC.startswith(path.read_bytes()[: len(MAGIC)].rstrip(b"\0")):
        with pytest.raises(SpoolError):
            SpoolWriter(folder)
        return
    again = SpoolWriter(folder)
    write(again, b"after")
    found = payloads(folder)
    assert found[: len(whole)] == whole
    assert found[-1] == b"after"
    assert len(found) == len(whole) + 1 or rubbish
    again.close()
    read_sealed(folder, 1)


def test_a_reader_follows_a_live_writer_in_another_process(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "0"], stdout=subprocess.DEVNULL)
    try:
        reader = SpoolReader(tmp_path)
        found: list[int] = []

        def enough() -> Any:
            found.extend(
                int(record.payload.partition(b":")[0])
                for record in reader.read()
                if record.kind is Entry.EVENTS
            )
            return len(found) > 500

        until(enough, "five hundred records")
        assert found == list(range(len(found)))
    finally:
        process.kill()
        process.wait()
