"""Files are followed through whatever happens to files; what the daemon holds is what was written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.client import Client, Pause, Unreachable
from monitor.sources.follow import files as following
from monitor.sources.follow.files import Files
from monitor.sources.follow.follower import Follower
from monitor.sources.follow.place import FollowedElsewhere, PlaceFile
from monitor.sources.follow.tail import MAX_LINE
from tests.daemons import until
from tests.sources.live import LiveEdge


def line(n: int, **columns: Any) -> bytes:
    """An event without an id, on a line."""
    event = {"event_type": "tool.executed", "agent_id": "a", "timestamp": "2026-01-05T09:30:00Z"}
    return json.dumps({**event, "tool_name": f"t{n}", **columns}).encode() + b"\n"


class Following:
    """A follower in this process, in a thread of its own, over a real edge."""

    def __init__(self, edge: LiveEdge, folder: Path, *patterns: str, **options: Any) -> None:
        self.told: list[tuple[str, str | None, dict[str, Any]]] = []
        self.stop = threading.Event()
        self.edge = edge
        files = Files(
            [str(folder / pattern) for pattern in patterns],
            PlaceFile(folder.parent / "follow.json"),
            self.tell,
            from_end=options.pop("from_end", False),
            once=options.get("once", False),
        )
        self.follower = Follower(files, self.client, self.tell, self.stop, **options)
        self._thread = threading.Thread(target=self.follower.run)
        self._thread.start()

    def client(self) -> Client:
        if not self.edge.running:
            raise Unreachable("the edge is down")
        return Client(self.edge.url, self.edge.url, self.edge.key)

    def tell(self, what: str, path: Path | None, **facts: Any) -> None:
        self.told.append((what, path and path.name, facts))

    def heard(self, what: str) -> list[str | None]:
        return [name for kind, name, _ in self.told if kind == what]

    def end(self) -> None:
        self.stop.set()
        self.join()

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


@pytest.fixture
def follow(edge: LiveEdge, logs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Following]]:
    monkeypatch.setattr(following, "FIND_SECONDS", 0.05)
    monkeypatch.setattr(following, "ROTATED_SECONDS", 0.5)
    monkeypatch.setattr(following, "COPY_SECONDS", 0.5)
    begun: list[Following] = []

    def begin(*patterns: str, **options: Any) -> Following:
        begun.append(Following(options.pop("edge", edge), logs, *patterns, **options))
        return begun[-1]

    yield begin
    for one in begun:
        one.end()


def tools(edge: LiveEdge) -> list[str]:
    return [event["tool_name"] for event in edge.stored()]


def hold(edge: LiveEdge, *numbers: int) -> None:
    """Wait until the edge holds these, and hold that it has no other."""
    wanted = sorted(f"t{n}" for n in numbers)
    until(lambda: len(tools(edge)) >= len(wanted), f"{len(wanted)} lines arrive")
    assert sorted(tools(edge)) == wanted


def write(file: Path, *numbers: int) -> None:
    with file.open("ab") as out:
        out.write(b"".join(line(n) for n in numbers))


def test_lines_arrive_as_they_are_written_also_from_files_that_come_later(
    edge: LiveEdge, logs: Path, follow: Any
) -> None:
    write(logs / "a.log", 1, 2)
    follow("*.log", "later.ndjson")
    hold(edge, 1, 2)
    write(logs / "a.log", 3)
    write(logs / "b.log", 4)
    write(logs / "later.ndjson", 5)
    hold(edge, 1, 2, 3, 4, 5)


def test_two_equal_lines_are_two_events(edge: LiveEdge, logs: Path, follow: Any) -> None:
    write(logs / "a.log", 1, 1, 1)
    follow("a.log")
    hold(edge, 1, 1, 1)
    assert len({event["event_id"] for event in edge.stored()}) == 3


def test_an_id_of_the_producer_is_left_as_it_is(edge: LiveEdge, logs: Path, follow: Any) -> None:
    (logs / "a.log").write_bytes(
        line(1, event_id="mine") + line(2, event_id="mine") + line(3, x={"event_id": 1})
    )
    follow("a.log", once=True).join()
    ids = [event["event_id"] for event in edge.stored()]
    assert ids[0] == "mine"
    assert ids[1].startswith("mine#conflict-")
    assert ids[2].startswith("line_")


def test_half_a_line_waits_for_its_other_half(edge: LiveEdge, logs: Path, follow: Any) -> None:
    whole = line(2)
    (logs / "a.log").write_bytes(line(1) + whole[:40])
    follow("a.log")
    hold(edge, 1)
    with (logs / "a.log").open("ab") as out:
        out.write(whole[40:])
    hold(edge, 1, 2)
    assert edge.dead.count() == 0


def test_rename_and_create_loses_nothing_even_what_is_written_after_the_rename(
    edge: LiveEdge, logs: Path, follow: Any
) -> None:
    log = logs / "a.log"
    write(log, 1)
    begun = follow("a.log")
    hold(edge, 1)
    with log.open("ab") as late:
        log.rename(logs / "a.log.1")
        write(log, 2)
        late.write(line(3))
    hold(edge, 1, 2, 3)
    until(lambda: "a.log" in begun.heard("rotated"), "the rotation is told")


def test_a_file_that_a_pattern_still_names_after_its_rename_is_not_sent_again(
    edge: LiveEdge, logs: Path, follow: Any
) -> None:
    write(logs / "a.log", 1, 2)
    follow("a.log*")
    hold(edge, 1, 2)
    (logs / "a.log").rename(logs / "a.log.1")
    write(logs / "a.log.1", 3)
    write(logs / "a.log", 4)
    hold(edge, 1, 2, 3, 4)
    assert edge.committer.counters.duplicates == 0


@pytest.mark.parametrize("pattern", ["a.log", "a.log*"])
def test_copytruncate_loses_and_repeats_nothing(
    edge: LiveEdge, logs: Path, follow: Any, pattern: str
) -> None:
    log = logs / "a.log"
    write(log, 1, 2, 3)
    begun = follow(pattern)
    hold(edge, 1, 2, 3)
    shutil.copyfile(log, logs / "a.log.1")
    os.truncate(log, 0)
    write(log, 4)
    hold(edge, 1, 2, 3, 4)
    until(lambda: "a.log" in begun.heard("truncated"), "the cut is told")
    if pattern == "a.log*":
        until(lambda: "a.log.1" in begun.heard("copy"), "the copy is known for one")
    assert edge.committer.counters.duplicates == 0


def test_what_was_not_read_before_copytruncate_is_read_from_the_copy(
    edge: LiveEdge, logs: Path, follow: Any
) -> None:
    log = logs / "a.log"
    write(log, 1, 2)
    follow("a.log*", once=True).join()
    write(log, 3)  # nobody follows now
    shutil.copyfile(log, logs / "a.log.1")
    os.truncate(log, 0)
    write(log, 4)
    follow("a.log*")
    hold(edge, 1, 2, 3, 4)
    assert edge.committer.counters.duplicates == 0


def test_a_truncated_file_that_grew_beyond_the_old_offset_is_found_out(
    edge: LiveEdge, logs: Path, follow: Any
) -> None:
    log = logs / "a.log"
    write(log, 1)
    follow("a.log")
    hold(edge, 1)
    log.write_bytes(b"".join(line(n, session_id="new") for n in range(2, 10)))
    hold(edge, *range(1, 10))


def test_a_truncated_file_that_begins_with_the_same_line_is_found_out(
    edge: LiveEdge, logs: Path, follow: Any
) -> None:
    log = logs / "a.log"
    write(log, 0, 1, 2)
    begun = follow("a.log")
    hold(edge, 0, 1, 2)
    log.write_bytes(line(0) + b"".join(line(n, session_id="new") for n in range(3, 10)))
    hold(edge, *range(10))
    assert begun.heard("truncated") == ["a.log"]


@pytest.mark.parametrize("nothing", [b"\f", b"\v\f \t", b"\xef\xbb\xbf", b"\xef\xbb\xbf \0\f", b"\0\0"])
def test_a_line_of_nothing_stops_no_file(edge: LiveEdge, logs: Path, follow: Any, nothing: bytes) -> None:
    (logs / "odd.log").write_bytes(nothing + b"\n")
    follow("*.log")
    until(lambda: not edge.stored(), "it is met alone")
    write(logs / "a.log", 1)
    hold(edge, 1)
    with (logs / "odd.log").open("ab") as odd:
        odd.write(nothing + b"\n" + line(2) + b"broken\n" + nothing + b"\n" + line(3))
    hold(edge, 1, 2, 3)
    until(lambda: [letter.raw for letter in edge.letters(9)] == ["broken"], "the broken line's letter")


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe\x00", b"\x1f\x8b not packed", b'"' * 70_000, b"\x1c", b"\x85", b"[" * 50_000]
)
def test_no_line_of_one_file_stops_the_others(edge: LiveEdge, logs: Path, follow: Any, raw: bytes) -> None:
    (logs / "odd.log").write_bytes(line(1) + raw + b"\n" + line(2))
    write(logs / "a.log", 3)
    begun = follow("*.log")
    hold(edge, 1, 2, 3)
    until(lambda: begun.follower.totals.rejected == 1, "it is told")


def test_a_deleted_file_is_read_to_its_end_and_another_may_take_its_name(
    edge: LiveEdge, logs: Path, follow: Any
) -> None:
    log = logs / "a.log"
    write(log, 1)
    follow("a.log")
    hold(edge, 1)
    with log.open("ab") as open_still:
        log.unlink()
        open_still.write(line(2) + line(3).rstrip())
    hold(edge, 1, 2, 3)  # the last has no newline, and nobody will write one
    write(log, 4)
    hold(edge, 1, 2, 3, 4)


def test_a_restart_goes_on_where_it_was_also_in_a_file_renamed_meanwhile(
    edge: LiveEdge, logs: Path, follow: Any
) -> None:
    log = logs / "a.log"
    write(log, 1, 2)
    follow("a.log", once=True).join()
    write(log, 3)
    log.rename(logs / "a.log.1")
    write(log, 4)
    follow("a.log", once=True).join()
    hold(edge, 1, 2, 3, 4)
    assert edge.committer.counters.duplicates == 0


def test_another_file_that_has_the_number_of_a_lost_one_is_not_taken_for_it(
    edge: LiveEdge, logs: Path, follow: Any
) -> None:
    log = logs / "a.log"
    write(log, 1, 2)
    follow("a.log", once=True).join()
    (logs / "private.txt").write_bytes(b"x" * 5000)
    places = json.loads((logs.parent / "follow.json").read_bytes())
    places["places"][0]["inode"] = (logs / "private.txt").stat().st_ino
    (logs.parent / "follow.json").write_text(json.dumps(places))
    follow("a.log", once=True).join()
    assert edge.dead.count() == 0
    hold(edge, 1, 2)
    assert edge.committer.counters.duplicates == 0  # known again by what is in it


def test_bad_lines_are_told_with_their_place_and_become_dead_letters(
    edge: LiveEdge, logs: Path, follow: Any
) -> None:
    (logs / "a.log").write_bytes(line(1) + b"\n\n" + b'{"broken": \n' + b"[]\n" + line(2))
    begun = follow("a.log", once=True)
    begun.join()
    offset = len(line(1)) + 2
    refused = [facts["offset"] for what, _, facts in begun.told if what == "refused"]
    assert refused == [offset, offset + 12]
    assert [letter.raw for letter in edge.letters(9)] == ['{"broken":', "[]"]
    assert begun.follower.totals.rejected == 2
    hold(edge, 1, 2)


def test_a_line_without_end_takes_no_memory_and_its_neighbours_go_on(
    edge: LiveEdge, logs: Path, follow: Any
) -> None:
    (logs / "a.log").write_bytes(line(1) + b'{"x": "' + b"y" * (MAX_LINE + 5) + b'"}\n' + line(2))
    follow("a.log", once=True).join()
    hold(edge, 1, 2)
    (letter,) = edge.letters(9)
    assert letter.size < 10_000


def test_a_packed_file_is_left_alone(edge: LiveEdge, logs: Path, follow: Any) -> None:
    import gzip

    (logs / "a.log.1.gz").write_bytes(gzip.compress(line(1)))
    write(logs / "a.log", 2)
    begun = follow("a.log*", once=True)
    begun.join()
    assert begun.heard("compressed") == ["a.log.1.gz"]
    hold(edge, 2)
    assert edge.dead.count() == 0


def test_from_end_leaves_what_was_there_and_takes_what_comes(edge: LiveEdge, logs: Path, follow: Any) -> None:
    (logs / "a.log").write_bytes(line(1) + line(2)[:-5])
    begun = follow("*.log", from_end=True)
    until(lambda: begun.heard("opened"), "it is open")
    with (logs / "a.log").open("ab") as out:
        out.write(line(2)[-5:])
    write(logs / "b.log", 3)
    hold(edge, 2, 3)


def test_once_sends_a_last_line_without_newline_only_where_it_is_whole(
    edge: LiveEdge, logs: Path, follow: Any
) -> None:
    (logs / "whole.log").write_bytes(line(1).rstrip())
    (logs / "half.log").write_bytes(line(2) + line(3)[:30])
    begun = follow("*.log", once=True)
    begun.join()
    hold(edge, 1, 2)
    assert begun.heard("unfinished") == ["half.log"]
    with (logs / "whole.log").open("ab") as out:
        out.write(b"\n" + line(4))
    follow("*.log", once=True).join()
    hold(edge, 1, 2, 4)
    assert edge.committer.counters.duplicates == 0


def test_a_flood_in_one_file_does_not_hold_up_another(edge: LiveEdge, logs: Path, follow: Any) -> None:
    write(logs / "loud.log", *range(5000))
    write(logs / "quiet.log", 9999)
    follow("*.log", once=True).join()
    assert tools(edge).index("t9999") < 1100
    assert len(tools(edge)) == 5001


def test_while_the_daemon_is_away_or_busy_files_rotate_and_nothing_is_lost(
    edge: LiveEdge, start_edge: Any, logs: Path, follow: Any
) -> None:
    write(logs / "a.log", 1)
    begun = follow("a.log")
    hold(edge, 1)
    edge.stop()
    write(logs / "a.log", 2)
    until(lambda: begun.heard("waiting"), "it waits")
    for n in (3, 4):
        (logs / "a.log").rename(logs / f"a.log.{n}")
        write(logs / "a.log", n)
        inode = (logs / "a.log").stat().st_ino
        until(lambda inode=inode: inode in _open_inodes(), "the new file is held")  # type: ignore[misc]
    begun.edge = start_edge()
    hold(begun.edge, 1, 2, 3, 4)


def _open_inodes() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.stat(f"/proc/self/fd/{name}").st_ino)
        except OSError:
            continue
    return found


def test_a_busy_daemon_is_given_the_time_it_asks_for(edge: LiveEdge, logs: Path, tmp_path: Path) -> None:
    write(logs / "a.log", 1)
    told: list[dict[str, Any]] = []
    refusals = iter([Pause(0.2, "too much is waiting")])

    class Busy(Client):
        def offer(self, lines: list[bytes], live: bool) -> dict[str, Any]:
            for refusal in refusals:
                raise refusal
            return super().offer(lines, live)

    def tell(what: str, _path: Path | None, **facts: Any) -> None:
        if what == "waiting":
            told.append(facts)

    files = Files([str(logs / "a.log")], PlaceFile(tmp_path / "state"), tell, once=True)
    client = Busy(edge.url, edge.url, edge.key)
    Follower(files, lambda: client, tell, threading.Event(), once=True).run()
    assert told == [{"seconds": 0.2, "why": "too much is waiting"}]
    hold(edge, 1)


def test_two_do_not_share_a_state_file_and_a_damaged_one_is_not_taken_for_none(tmp_path: Path) -> None:
    held = PlaceFile(tmp_path / "follow.json")
    with pytest.raises(FollowedElsewhere, match="--state"):
        PlaceFile(tmp_path / "follow.json")
    held.close()
    (tmp_path / "follow.json").write_text("{")
    again = PlaceFile(tmp_path / "follow.json")
    with pytest.raises(OSError, match="damaged"):
        again.load()
    again.close()


def test_the_command_ends_on_sigterm_and_says_what_it_did(edge: LiveEdge, logs: Path, tmp_path: Path) -> None:
    write(logs / "a.log", 1)
    (logs / "a.log").open("ab").write(b"bad\n")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "monitor.cli",
            "--data",
            str(tmp_path / "own"),
            "follow",
            str(logs / "*"),
            "--json",
        ],
        env={**os.environ, "WATCHKEEPER_URL": edge.url, "WATCHKEEPER_TOKEN": edge.key},
        stdout=subprocess.PIPE,
        text=True,
    )
    hold(edge, 1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    said = [json.loads(raw) for raw in out.splitlines()]
    assert process.returncode == 0
    assert [one["offset"] for one in said if one["what"] == "refused"] == [len(line(1))]
    assert said[-1]["accepted"] == 1
    assert (
        json.loads((tmp_path / "own" / "follow.json").read_bytes())["places"][0]["offset"] == len(line(1)) + 4
    )
