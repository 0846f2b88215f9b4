"""More than the daemon can take, as real senders meet it: told to wait, nothing lost, soon over."""

from __future__ import annotations

import gzip
import json
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitor.sources.spool import Entry, SpoolReader
from tests.daemons import Daemon, running, stored_ids, until
from tests.disks import MIB, fill, small_disk
from tests.scenarios.test_daemon import denials, line
from tests.sources.live import stored_events

ROOM_EVENTS = 1000


class Sender(threading.Thread):
    """Sends requests with its key until told to end; repeats what was not answered with 200."""

    def __init__(self, daemon: Daemon, name: str, key: str, events: int, requests: int | None = None) -> None:
        super().__init__(name=name)
        self.statuses: Counter[int] = Counter()
        self.answered: list[str] = []
        self.slowest = 0.0
        self.no_pause_named = 0
        self.over = threading.Event()
        self._url = f"{daemon.runtime.edge_url}/v1/events"
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"}
        self._events = events
        self._requests = requests

    def run(self) -> None:
        """Body by body."""
        with httpx.Client(trust_env=False, timeout=60) as client:
            number = 0
            while not self.over.is_set() and number != self._requests:
                ids = [f"{self.name}-{number}-{n}" for n in range(self._events)]
                body = b"\n".join(line(event_id=i, session_id=f"{self.name}-{number}") for i in ids)
                while not self.over.is_set():
                    began = time.monotonic()
                    reply = client.post(self._url, content=body, headers=self._headers)
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    self.statuses[reply.status_code] += 1
                    self.no_pause_named += reply.status_code == 429 and "retry-after" not in reply.headers
                    if reply.status_code == 200:
                        self.answered += ids
                        break
                number += 1


def create_key(daemon: Daemon, name: str) -> dict[str, str]:
    """A new key: its ``id`` and, as ``key``, its secret."""
    made: dict[str, str] = daemon.json("keys", "create", name)
    return made


def pids(daemon: Daemon) -> dict[str, int]:
    return {p["name"]: p["pid"] for p in daemon.client.get("/api/v1/status")["processes"]}


def peak_mib(pid: int) -> float:
    """The most memory a process ever had, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def detail(daemon: Daemon, name: str) -> dict[str, Any]:
    """What a process says for people."""
    found: dict[str, Any] = next(
        p["detail"] for p in daemon.client.get("/api/v1/status")["processes"] if p["name"] == name
    )
    return found


def heavy(megabytes: int) -> bytes:
    """A body of that size, small on the wire."""
    one = line(tool_args="x" * MIB)
    return gzip.compress(b"\n".join([one] * megabytes), 1)


@pytest.fixture(scope="module")
def small_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that lets little wait at a time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WATCHKEEPER_EDGE__MAX_WAITING_EVENTS", str(ROOM_EVENTS))
        patched.setenv("WATCHKEEPER_EDGE__MAX_WAITING_BYTES", str(48 * MIB))
        with running(tmp_path_factory.mktemp("small-room") / "data") as started:
            yield started


def test_a_flood_is_told_to_wait_a_quiet_key_is_served_and_nothing_answered_is_lost(
    small_room: Daemon,
) -> None:
    flood_key, quiet_key = create_key(small_room, "flood"), create_key(small_room, "quiet")
    at_once = 10 * ROOM_EVENTS  # ten times what may wait
    flood = [Sender(small_room, f"flood{n}", flood_key["key"], 500) for n in range(at_once // 500)]
    quiet = Sender(small_room, "quiet", quiet_key["key"], 10, requests=20)
    for sender in flood:
        sender.start()
    until(lambda: sum(s.statuses[429] for s in flood) > 20, "the flood meets its limit")
    quiet.start()
    quiet.join(60)
    for sender in flood:
        sender.over.set()
    for sender in flood:
        sender.join(60)
    assert quiet.statuses == {200: 20}
    assert quiet.slowest < 10
    statuses = sum((s.statuses for s in flood), Counter[int]())
    assert set(statuses) == {200, 429}
    assert statuses[429] > statuses[200]
    assert not any(s.no_pause_named for s in flood)

    calm = Sender(small_room, "calm", flood_key["key"], 500, requests=1)
    calm.start()
    calm.join(10)
    assert calm.statuses == {200: 1}
    counts = {"throttled_total": statuses[429], "refused_full_total": 0}
    held = {"waiting_bytes": 0, "waiting_events": 0}
    until(
        lambda: detail(small_room, "edge")["pressure"]["by_key"].get(flood_key["id"]) == counts | held,
        "the vitals count what was refused, and hold nothing any more",
    )
    assert quiet_key["id"] not in detail(small_room, "edge")["pressure"]["by_key"]
    answered = [i for s in (*flood, quiet, calm) for i in s.answered]
    kept = [event["event_id"] for event in stored_events(small_room.data / "spool")]
    assert sorted(kept) == sorted(answered)


def test_large_bodies_at_once_never_take_more_memory_than_they_may(small_room: Daemon) -> None:
    headers = {
        "Authorization": f"Bearer {create_key(small_room, 'large')['key']}",
        "Content-Encoding": "gzip",
    }
    body = heavy(14)
    edge = pids(small_room)["edge"]
    before = peak_mib(edge)
    statuses: Counter[int] = Counter()

    def send() -> None:
        for _ in range(2):
            reply = httpx.post(
                f"{small_room.runtime.edge_url}/v1/events",
                content=body,
                headers=headers,
                timeout=60,
                trust_env=False,
            )
            statuses[reply.status_code] += 1

    senders = [threading.Thread(target=send) for _ in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert set(statuses) == {200, 429}
    assert statuses.total() == 16
    assert peak_mib(edge) - before < 400
    until(lambda: detail(small_room, "edge")["pressure"]["waiting_bytes"] == 0, "all room is given back")


def test_with_clickhouse_down_answers_go_on_until_the_spool_is_full_and_stopping_beyond(
    tmp_path: Path,
) -> None:
    nowhere = '[store]\ndsn = "clickhouse://user:hidden@127.0.0.1:9/watchkeeper"\n'
    small = "[spool]\nmax_bytes = 2000000\nseal_bytes = 200000\n"
    data = tmp_path / "data"
    with running(data, nowhere + small, ready=False) as daemon:
        daemon.client.send(denials("dark"), live=True)
        alert = until(
            lambda: list(daemon.client.alerts(agent="invoice-agent")), "an alert, without ClickHouse"
        )[0]
        key = create_key(daemon, "filler")["key"]
        headers = {"Authorization": f"Bearer {key}"}
        replies: list[httpx.Response] = []

        def post() -> httpx.Response:
            noise = secrets.token_hex(30_000)
            return httpx.post(
                f"{daemon.runtime.edge_url}/v1/events",
                content=line(event_id=noise[:16], agent_id="filler", tool_args=noise),
                headers=headers,
                trust_env=False,
            )

        def full() -> bool:
            replies.append(post())
            return replies[-1].status_code != 200

        until(full, "the spool is full", 60)
        assert len(replies) > 20
        assert replies[-1].status_code == 503
        assert int(replies[-1].headers["retry-after"]) > 0
        assert "spool.max_bytes" in replies[-1].json()["detail"]

        daemon.client.post(f"/api/v1/alerts/{alert['id']}/changes", {"status": "acknowledged"})
        order = daemon.json(
            "kill", "--agent", "invoice-agent", "--reason", "exercise", "--wait", "20", code=1
        )
        assert order["state"] == "failed"
        assert "endpoint" in order["detail"]
        assert post().status_code == 503
        moment = time.time_ns() // 1000

        def ticks() -> list[int]:
            reader, found = SpoolReader(data / "spool"), []
            while records := reader.read():
                found += [r.payload for r in records if r.kind is Entry.TICK]
            return [int.from_bytes(payload, "little", signed=True) for payload in found]

        until(lambda: ticks()[-1] > moment, "time goes on in the spool")
        until(
            lambda: daemon.metrics()["detection"]["judged_events"] >= 6 + len(replies) - 1, "all are judged"
        )
        until(lambda: detail(daemon, "edge")["pressure"]["refused_full_total"] == 2, "the vitals count both")
        assert detail(daemon, "edge")["pressure"]["spool_full"]
        assert "spool is full" in httpx.get(f"{daemon.runtime.console_url}/readyz", trust_env=False).text


def test_a_full_disk_is_told_and_recovers_by_itself(tmp_path: Path) -> None:
    with small_disk(320) as disk:
        data = disk / "data"
        settings = "[spool]\nmin_free_bytes = 67108864\n[detection]\nsnapshot_seconds = 3\n"
        with running(data, settings) as daemon:
            key = create_key(daemon, "sender")["key"]
            answered: list[str] = []

            def post() -> httpx.Response:
                event_id = secrets.token_hex(8)
                reply = httpx.post(
                    f"{daemon.runtime.edge_url}/v1/events",
                    content=line(event_id=event_id),
                    headers={"Authorization": f"Bearer {key}"},
                    timeout=30,
                    trust_env=False,
                )
                if reply.status_code == 200:
                    answered.append(event_id)
                return reply

            before = pids(daemon)
            assert post().status_code == 200
            until(lambda: list((data / "snapshots").glob("*.snapshot")), "a snapshot")
            assert post().status_code == 200

            fill(disk / "filler")
            until(lambda: post().status_code == 503, "nothing can be kept", 10)
            console = daemon.runtime.console_url

            def silent() -> bool:
                fill(disk / "filler")
                reason = httpx.get(f"{console}/readyz", trust_env=False).json().get("detail", "")
                return "the edge process has shown no sign of life" in reason

            until(silent, "nobody can write, and the console still says so")
            for _ in range(10):
                reply = post()
                assert (reply.status_code, int(reply.headers["retry-after"])) == (503, 5)
            (disk / "filler").unlink()
            until(lambda: post().status_code == 200, "events are taken in again", 15)
            until(daemon.ready, "all is well again", 45)

            fill(disk / "filler", leave=48 * MIB)
            reply = until(lambda: (r := post()).status_code == 503 and r, "the spool gives way first", 10)
            assert "spool.min_free_bytes" in reply.json()["detail"]
            until(lambda: detail(daemon, "edge")["pressure"]["disk_fault"], "the vitals tell it")
            stop = ("kill", "--agent", "invoice-agent", "--reason", "exercise", "--wait", "20")
            order = daemon.json(*stop, code=1)
            assert order["state"] == "failed"
            (disk / "filler").unlink()
            until(lambda: post().status_code == 200, "and again", 15)

            assert pids(daemon) == before
            assert daemon.metrics()["detection"]["snapshots_failed_total"] >= 1
            daemon.client.send(denials("afterwards"), live=True)
            answered += [json.loads(raw)["event_id"] for raw in denials("afterwards")]
            until(lambda: list(daemon.client.alerts(agent="invoice-agent")), "an alert after the full disk")

            fill(disk / "filler")
            until(lambda: post().status_code == 503, "the disk is full once more", 10)
            daemon.kill()
            fill(disk / "filler")
            daemon.start(ready=False)
            assert post().status_code == 503
            order = daemon.json(*stop, code=1)
            assert order["state"] == "failed"
            (disk / "filler").unlink()
            until(lambda: post().status_code == 200, "a daemon that began on a full disk takes in events", 20)
            until(daemon.ready, "and is well", 45)
            daemon.stop()
        assert stored_ids(data) == sorted(answered)
