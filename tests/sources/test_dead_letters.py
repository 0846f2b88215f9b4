"""What was refused is kept whole, within bounds, and can be sent again as its sender."""

from __future__ import annotations

import base64
import gzip
import json
import os
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from monitor.sources.deadletters import DeadLetter, DeadLetters
from monitor.sources.deadreader import Wanted, find, find_all, mark_done, newest, page, place
from monitor.sources.gate import Rejection
from monitor.sources.keys import Sender
from monitor.sources.letterfiles import read_lines, write_lines
from monitor.sources.otlp_alone import Alone
from tests.daemons import until
from tests.sources.live import LiveEdge

SENDER = Sender("key_1", "acme", way="/v1/events", content_type="application/x-ndjson")
AT = '"timestamp": "2026-01-05T09:30:00Z"'


def letter(n: int, raw: bytes | None = b"{", most: int = 1 << 20) -> DeadLetter:
    return DeadLetter.of(n, SENDER, Rejection(n, f"reason {n}", raw), most)


def indexes(folder: Path) -> list[int]:
    """Of every letter, oldest first."""
    return [kept.letter.index for kept in newest(folder)][::-1]


def test_a_record_of_any_size_and_kind_of_bytes_comes_back_as_it_was(tmp_path: Path) -> None:
    raws = [b'{"a": "\xc3\xbc"}', b"\xff\x00" * 50_000, b"\x01" * 50_000, b"x" * 900_000, b"", None]
    dead = DeadLetters(tmp_path)
    dead.append(letter(n, raw) for n, raw in enumerate(raws))
    assert [kept.letter.bytes() for kept in newest(tmp_path)][::-1] == raws
    # Control characters would take six bytes each as text.
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2 * sum(len(raw or b"") for raw in raws)


def test_a_letter_that_is_too_large_is_an_excerpt_and_says_so(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path, max_bytes=40_000)
    dead.append([letter(1, b"x" * 30_000, dead.most)])
    (kept,) = newest(tmp_path)
    assert (kept.letter.form, kept.letter.size) == ("excerpt", 30_000)
    assert kept.letter.bytes() == b"x" * 10_000


def test_letters_are_bounded_and_the_newest_are_kept(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path, max_bytes=20_000)
    for n in range(500):
        dead.append([letter(n, b"x" * 100)])
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000
    assert indexes(tmp_path)[-3:] == [497, 498, 499]
    assert 50 < dead.count() < 500
    assert DeadLetters(tmp_path).count() == dead.count() == len(indexes(tmp_path))


def test_an_id_stays_when_older_letters_go(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path, max_bytes=20_000)
    dead.append(letter(n, b"x" * 100) for n in range(90))
    (last,) = islice(newest(tmp_path), 1)
    mark_done(tmp_path, [last.id, "1-1"], 5, "ana")
    for n in range(200):
        found = find(tmp_path, last.id)
        assert found is None or (found.letter.index == 89 and found.done and found.done.actor == "ana")
        dead.append([letter(n, b"x" * 100)])
    assert find(tmp_path, last.id) is None
    assert not list(tmp_path.glob("*.done"))


@pytest.mark.parametrize("wrong", ["", "1", "1-", "0-1", "1-0", "../1-1", "1-1\n", "1-1-1", "９-1"])
def test_an_id_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="looks like"):
        place(wrong)


def test_a_torn_or_damaged_line_does_not_hide_the_others(tmp_path: Path) -> None:
    DeadLetters(tmp_path).append([letter(1)])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + b"\0\0\0\n" + b'{"at": 3')
    DeadLetters(tmp_path).append([letter(2)])
    assert [kept.letter.reason for kept in newest(tmp_path)] == [
        "reason 2",
        "this letter is damaged on the disk",
        "reason 1",
    ]


def test_a_write_that_fails_half_way_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = DeadLetters(tmp_path)
    dead.append([letter(1)])
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        monkeypatch.setattr(os, "write", refuse)
        return write(descriptor, bytes(data)[:20])

    def refuse(descriptor: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        dead.append([letter(2)])
    monkeypatch.setattr(os, "write", write)
    dead.append([letter(3)])
    assert indexes(tmp_path) == [1, 3]
    assert DeadLetters(tmp_path).count() == 2


def test_pages_follow_each_other_while_letters_come(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path, max_bytes=100_000)
    dead.append(letter(n, b"x" * 500) for n in range(50))
    seen: list[int] = []
    before = None
    while found := page(tmp_path, Wanted().fits, before, 7):
        seen += [kept.letter.index for kept in found]
        before = found[-1].id
        dead.append([letter(1000)])
    assert seen == list(range(49, -1, -1))


def test_letters_are_found_by_what_is_said_of_them(tmp_path: Path) -> None:
    DeadLetters(tmp_path).append(letter(n) for n in range(5))
    mark_done(tmp_path, ["1-2"], 1, "ana")

    def found(**wanted: Any) -> list[int]:
        return [kept.letter.index for kept in page(tmp_path, Wanted(**wanted).fits, None, 100)]

    assert found(reason="REASON 3") == [3]
    assert found(key_id="key_2") == found(tenant="other") == []
    assert found(tenant="acme", key_id="key_1", since=3) == [4, 3]
    assert found(replayed=True) == [1]
    assert found(replayed=False) == [4, 3, 2, 0]


# --- sent again, over a real edge ---


def record(n: int, **columns: Any) -> bytes:
    made = {"event_type": "tool.executed", "agent_id": "invoice-agent", "event_id": f"e{n}", **columns}
    return json.dumps({"timestamp": "2026-01-05T09:30:00Z", **made}).encode()


def replay(edge: LiveEdge, *ids: str, actor: str = "ana") -> dict[str, str]:
    """Ask as the console does; the state of each letter."""
    local = edge.keys.renew_local()
    asked = json.dumps({"ids": ids, "actor": actor})

    def known() -> httpx.Response | None:  # the edge looks for new keys five times a second
        reply = edge.post(asked, "/v1/dead-letters/replay", local)
        return None if reply.status_code == 401 else reply

    reply = until(known, "the new key is known")
    assert reply.status_code == 200, reply.text
    return {outcome["id"]: outcome["state"] for outcome in reply.json()["outcomes"]}


def ids(edge: LiveEdge) -> list[str]:
    return [kept.id for kept in newest(edge.dead.folder)][::-1]


def test_a_letter_goes_in_once_the_limit_that_refused_it_is_mended(start_edge: Any) -> None:
    edge = start_edge(max_name_bytes=50)
    lines = [record(1, tool_name="t" * 60), record(2), record(3, session_id="s" * 60), b'{"broken": ']
    reply = edge.post(b"\n".join(lines), content_type="application/x-ndjson")
    assert reply.json()["accepted"] == 1
    key, sender = edge.key, edge.key_id
    edge.stop()

    mended = start_edge()
    first, second, broken = ids(mended)
    assert replay(mended, first, second, broken) == {first: "replayed", second: "replayed", broken: "refused"}
    assert sorted(event["event_id"] for event in mended.stored()) == ["e1", "e2", "e3"]
    # Again changes nothing, and what is refused again makes no letter of its own.
    assert replay(mended, first, second, broken) == {first: "already", second: "already", broken: "refused"}
    assert len(mended.stored()) == 3
    assert ids(mended) == [first, second, broken]
    marks = {kept.id: kept.done and kept.done.actor for kept in newest(mended.dead.folder)}
    assert marks == {first: "ana", second: "ana", broken: None}
    assert {kept.letter.key_id for kept in newest(mended.dead.folder)} == {sender}
    assert key != mended.key


def test_a_replayed_letter_has_the_rights_of_its_sender_and_no_more(edge: LiveEdge) -> None:
    key_id, bound = edge.keys.create("bound", "acme", ["refund-agent"], ["ingest"])
    assert edge.post(record(1), key=bound).status_code == 422
    assert edge.post(record(2, tenant="other", agent_id="refund-agent"), key=bound).status_code == 422
    assert set(replay(edge, *ids(edge)).values()) == {"refused"}
    assert edge.stored() == []
    edge.keys.revoke(key_id)
    assert set(replay(edge, *ids(edge)).values()) == {"refused"}


def test_a_letter_of_a_revoked_key_is_not_let_in(start_edge: Any) -> None:
    edge = start_edge(max_name_bytes=50)
    key_id, secret = edge.keys.create("leaver", "acme")
    edge.post(record(1, tool_name="t" * 60), key=secret)
    edge.keys.revoke(key_id)
    edge.stop()
    mended = start_edge()
    assert list(replay(mended, *ids(mended)).values()) == ["refused"]
    assert mended.stored() == []


def test_a_letter_of_an_earlier_start_of_the_commands_on_this_machine_is_let_in(start_edge: Any) -> None:
    edge = start_edge(max_name_bytes=50)
    edge.post(record(1, tool_name="t" * 60), key=edge.keys.renew_local(), watchkeeper_replay="true")
    edge.stop()
    mended = start_edge()
    assert list(replay(mended, *ids(mended)).values()) == ["replayed"]
    (event,) = mended.stored()
    assert event["attributes"] == {"watchkeeper.replay": "true"}


def test_a_whole_request_that_was_refused_goes_in_as_it_was(start_edge: Any) -> None:
    edge = start_edge(max_waiting_events=2)
    assert edge.post(b"[" + b",".join(record(n) for n in range(5)) + b"]").status_code == 413
    edge.stop()
    mended = start_edge()
    assert list(replay(mended, *ids(mended)).values()) == ["replayed"]
    assert sorted(event["event_id"] for event in mended.stored()) == [f"e{n}" for n in range(5)]


def test_spans_that_were_refused_whole_go_in_as_they_were(start_edge: Any) -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for n in (1, 2, 3):
        span = spans.add(name="execute_tool x", trace_id=bytes([n] * 16), span_id=bytes([n] * 8))
        span.start_time_unix_nano = span.end_time_unix_nano = 1_767_605_400_000_000_000
        span.attributes.add(key="gen_ai.operation.name").value.string_value = "execute_tool"
        span.attributes.add(key="gen_ai.tool.name").value.string_value = "send"
    edge = start_edge(max_waiting_events=4)
    sent = edge.post(request.SerializeToString(), "/v1/traces", content_type="application/x-protobuf")
    assert sent.status_code == 413
    edge.stop()
    mended = start_edge()
    assert list(replay(mended, *ids(mended)).values()) == ["replayed"]
    assert {event["tool_name"] for event in mended.stored()} == {"send"}


def spans(*kinds: str) -> ExportTraceServiceRequest:
    """Two resources with a tool call for every kind: ``bad`` has a tool name too long, ``torn`` no time."""
    request = ExportTraceServiceRequest()
    for service in (1, 2):
        group = request.resource_spans.add()
        group.resource.attributes.add(key="service.name").value.string_value = f"service{service}"
        inside = group.scope_spans.add().spans
        for n, kind in enumerate(kinds):
            number = service * 10 + n
            span = inside.add(name="x", trace_id=bytes([number] * 16), span_id=bytes([number] * 8))
            if kind != "torn":
                span.start_time_unix_nano = span.end_time_unix_nano = 1_767_605_400_000_000_000
            span.attributes.add(key="gen_ai.operation.name").value.string_value = "execute_tool"
            tool = "t" * 60 if kind == "bad" else f"tool{number}"
            span.attributes.add(key="gen_ai.tool.name").value.string_value = tool
    return request


@pytest.mark.parametrize("kind", ["application/x-protobuf", "application/json"])
def test_a_refused_span_is_kept_as_a_request_of_its_own(start_edge: Any, kind: str) -> None:
    request = spans("good", "torn", "bad")
    body = request.SerializeToString() if kind != "application/json" else _otlp_json(request)
    edge = start_edge(max_name_bytes=50)
    assert edge.post(body, "/v1/traces", content_type=kind).status_code == 200
    kept = [one.letter for one in newest(edge.dead.folder)]
    assert {(letter.form, letter.way, letter.content_type) for letter in kept} == {
        ("request", "/v1/traces", kind)
    }
    assert all(len(letter.bytes() or b"") < len(body) / 2 for letter in kept)
    edge.stop()
    mended = start_edge()
    states = replay(mended, *ids(mended))
    assert set(states.values()) == {"replayed", "refused"}  # the torn ones are refused for good
    ends = [event for event in mended.stored() if event["event_type"] == "tool.executed"]
    assert sorted((event["agent_id"], event["tool_name"]) for event in ends) == [
        ("service1", "tool10"),
        ("service1", "t" * 60),
        ("service2", "tool20"),
        ("service2", "t" * 60),
    ]


def _otlp_json(request: ExportTraceServiceRequest) -> bytes:
    made = json_format.MessageToDict(request)
    for group in made["resourceSpans"]:
        for span in group["scopeSpans"][0]["spans"]:
            for name in (
                "traceId",
                "spanId",
            ):  # OTLP/JSON writes ids in hex, where protobuf's JSON has base64
                span[name] = base64.b64decode(span[name]).hex()
    return json.dumps(made).encode()


@pytest.mark.parametrize("as_json", [False, True])
def test_letters_of_one_request_are_bounded_however_large_its_resource(as_json: bool) -> None:
    request = spans(*["torn"] * 100)
    request.resource_spans[0].resource.attributes.add(key="x").value.string_value = "x" * 50_000
    body = _otlp_json(request) if as_json else request.SerializeToString()
    alone = Alone(body, "traces", as_json)
    kept = [made for made in (alone[n] for n in range(200)) if made]
    assert 1 <= len(kept) < 4
    assert sum(map(len, kept)) <= max(len(body), 65_536) + 1_000


def test_letters_of_a_small_request_are_all_there() -> None:
    body = spans(*["torn"] * 20).SerializeToString()
    assert all(Alone(body, "traces", as_json=False)[n] for n in range(40))


@pytest.mark.parametrize("as_json", [False, True])
def test_a_packed_bomb_of_bad_spans_under_one_huge_resource_holds_nobody_up(
    edge: LiveEdge, as_json: bool
) -> None:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="x").value.string_value = "x" * (12 << 20)
    inside = group.scope_spans.add().spans
    for _ in range(5_000):
        inside.add()
    body = json.dumps(json_format.MessageToDict(request)).encode() if as_json else request.SerializeToString()
    kind = "application/json" if as_json else "application/x-protobuf"
    begin = time.process_time()
    reply = edge.post(gzip.compress(body, 1), "/v1/traces", content_type=kind, content_encoding="gzip")
    assert reply.status_code == 200
    assert time.process_time() - begin < 6  # 21 s and more, where each letter copied the resource
    assert edge.dead.count() == 5_000
    assert sum(path.stat().st_size for path in edge.dead.folder.iterdir()) < 4 << 20


def test_each_letter_costs_the_same_however_many_come_with_it(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path)
    many = [letter(n) for n in range(60_000)]
    begin = time.process_time()
    dead.append(many)
    assert time.process_time() - begin < 6  # 30 s, where all before it were measured again for each
    assert dead.count() == 60_000


def test_one_refused_record_is_told_as_one(edge: LiveEdge) -> None:
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]})
    reply = edge.post(body, "/v1/traces", content_type="application/json")
    assert reply.json()["partialSuccess"]["errorMessage"].startswith("1 record was refused: ")


def test_thousands_of_bad_lines_hold_up_nobody_else(edge: LiveEdge) -> None:
    _, quiet = edge.keys.create("quiet")
    until(lambda: edge.post(record(0), key=quiet).status_code == 200, "the new key is known")
    flood = threading.Thread(target=lambda: edge.post(b"{\n" * 25_000, content_type="application/x-ndjson"))
    flood.start()
    answered = 0
    while flood.is_alive():
        answered += 1
        assert edge.post(record(answered), key=quiet).status_code == 200
    flood.join()
    assert edge.dead.count() == 25_000


# --- shared between keys ---


def from_key(key_id: str, n: int, raw: bytes = b"x" * 100) -> DeadLetter:
    return DeadLetter.of(n, Sender(key_id, "acme"), Rejection(n, "reason", raw), 1 << 20)


def of_key(folder: Path, key_id: str) -> list[int]:
    return [kept.letter.index for kept in newest(folder) if kept.letter.key_id == key_id][::-1]


def test_a_key_that_floods_pushes_out_its_own_letters_only(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path, max_bytes=40_000)
    kept: dict[str, int] = {}
    for n in range(3_000):
        dead.append([from_key("flood", n)])
        if n % 100 == 0:  # one to several files of the flood
            dead.append([from_key("quiet", n)])
            kept[next(newest(tmp_path)).id] = n
    assert of_key(tmp_path, "quiet") == list(kept.values())
    assert {letter_id: found.letter.index for letter_id, found in find_all(tmp_path, kept).items()} == kept
    flood = of_key(tmp_path, "flood")
    assert flood[-1] == 2_999
    assert len(flood) > 80
    assert dead.evicted == 3_000 - len(flood)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 40_000
    assert len(list(tmp_path.iterdir())) < 20  # what the flood left behind was put together
    assert DeadLetters(tmp_path).count() == dead.count() == len(flood) + len(kept)


def test_letters_stay_in_order_and_are_paged_after_others_were_taken_from_between(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path, max_bytes=40_000)
    for n in range(2_000):
        dead.append([from_key("quiet" if n % 40 == 0 else "flood", n)])
    every = [kept.letter.index for kept in newest(tmp_path)]
    assert every == sorted(every, reverse=True)
    seen: list[int] = []
    before = None
    while found := page(tmp_path, Wanted().fits, before, 7):
        seen += [kept.letter.index for kept in found]
        before = found[-1].id
    assert seen == every


def test_equal_keys_share_the_room_equally(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path, max_bytes=80_000)
    for n in range(2_000):
        dead.append([from_key(f"key{n % 4}", n)])
    held = [len(of_key(tmp_path, f"key{n}")) for n in range(4)]
    assert min(held) > 40
    assert max(held) < 2.5 * min(held)


def test_marks_stay_with_their_letters_and_what_was_replayed_is_not_missed(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path, max_bytes=40_000)
    dead.append([from_key("flood", 0), from_key("quiet", 1), from_key("flood", 2)])
    mark_done(tmp_path, ["1-1", "1-2"], 5, "ana")
    for n in range(1_000):
        dead.append([from_key("flood", n)])
    kept = find(tmp_path, "1-2")
    assert kept is not None
    assert kept.done is not None
    assert kept.done.actor == "ana"
    assert dead.evicted == 1_001 - len(of_key(tmp_path, "flood"))  # 1-1 was replayed
    mark_done(tmp_path, ["1-1"], 6, "bob")
    assert find(tmp_path, "1-1") is None


def test_a_crash_between_joining_and_removing_leaves_no_letter_twice(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path)
    for n in range(3):
        dead.append([from_key("k", n)])
        dead = DeadLetters(tmp_path)
    lines = read_lines(tmp_path, 1) + read_lines(tmp_path, 2)
    write_lines(tmp_path, 2, lines)
    (tmp_path / "000000000003.ndjson.draft").write_bytes(b"half")
    assert indexes(tmp_path) == [0, 1, 2]
    assert DeadLetters(tmp_path).count() == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000002.ndjson", "000000000003.ndjson"]
    assert indexes(tmp_path) == [0, 1, 2]


def test_a_reader_misses_nothing_when_files_are_joined_meanwhile(tmp_path: Path) -> None:
    for n in range(3):
        DeadLetters(tmp_path).append([from_key("k", n)])
    reading = newest(tmp_path)
    seen = [next(reading).letter.index, next(reading).letter.index]
    write_lines(tmp_path, 2, read_lines(tmp_path, 1) + read_lines(tmp_path, 2))
    (tmp_path / "000000000001.ndjson").unlink()
    seen += [kept.letter.index for kept in reading]
    assert seen == [2, 1, 0]


def test_a_mark_that_a_power_cut_tore_hides_nothing_and_spoils_no_later_mark(tmp_path: Path) -> None:
    DeadLetters(tmp_path).append(letter(n) for n in range(3))
    mark_done(tmp_path, ["1-1"], 1, "ana")
    with (tmp_path / "000000000001.done").open("ab") as marks:
        marks.write(b'{"line":2,"at\n\0\0\xff\n{"line":2,')
    mark_done(tmp_path, ["1-3"], 2, "bob")
    assert [kept.done and kept.done.actor for kept in newest(tmp_path)] == ["bob", None, "ana"]
    assert find(tmp_path, "1-2") is not None


def test_what_was_only_kept_in_part_is_not_sent_again(start_edge: Any) -> None:
    edge = start_edge(max_body_bytes=20_000)
    lines = b"\n".join(record(n) for n in range(500))
    assert edge.post(iter([lines]), content_type="application/x-ndjson").status_code == 413
    edge.stop()
    mended = start_edge()
    assert list(replay(mended, *ids(mended)).values()) == ["refused"]
    assert mended.stored() == []


def test_a_newline_within_a_record_does_not_cut_it_when_it_is_sent_again(start_edge: Any) -> None:
    edge = start_edge(max_name_bytes=50)
    pretty = json.dumps({**json.loads(record(1, tool_name="t" * 60)), "x": {"a": 1}}, indent=1).encode()
    torn = b'{"event_type": "tool.executed", "agent_id": "a\nb", ' + AT.encode() + b"}"
    edge.post(b"[" + pretty + b"," + torn + b"]")
    edge.stop()
    mended = start_edge()
    assert list(replay(mended, *ids(mended)).values()) == ["replayed", "refused"]


@pytest.mark.parametrize("limits", [{"max_body_bytes": 2_000}, {"max_waiting_events": 3}])
def test_letters_are_sent_again_in_requests_as_small_as_the_edge_takes(
    start_edge: Any, limits: dict[str, int]
) -> None:
    edge = start_edge(max_name_bytes=50)
    edge.post(
        b"\n".join(record(n, tool_name="t" * 60) for n in range(40)), content_type="application/x-ndjson"
    )
    edge.stop()
    mended = start_edge(**limits)
    found = ids(mended)
    assert replay(mended, *found) == dict.fromkeys(found, "replayed")
    assert len(mended.stored()) == 40


def test_only_the_console_may_ask_and_only_in_the_right_form(edge: LiveEdge) -> None:
    _, operator = edge.keys.create("operator", scopes=["ingest", "triage", "respond"])
    asked = json.dumps({"ids": [], "actor": "ana"})
    assert edge.post(asked, "/v1/dead-letters/replay", operator).status_code == 403
    replay(edge)
    local = edge.keys.renew_local()
    until(lambda: edge.post("", key=local).status_code == 400, "the new key is known")
    for wrong in ("", "[]", '{"ids": ["../x"], "actor": "a"}', '{"ids": []}', '{"ids": [], "actor": ""}'):
        assert edge.post(wrong, "/v1/dead-letters/replay", local).status_code == 400
    assert replay(edge, "7-7") == {"7-7": "gone"}


def test_who_replayed_what_stands_in_the_spool(start_edge: Any) -> None:
    edge = start_edge(max_name_bytes=50)
    edge.post(record(1, tool_name="t" * 60))
    (letter_id,) = ids(edge)
    replay(edge, letter_id, actor="key:key_9")
    controls = [json.loads(raw) for raw in edge.controls()]
    assert {"kind": "dead_letters_replayed", "actor": "key:key_9", "letters": [letter_id]} in controls
