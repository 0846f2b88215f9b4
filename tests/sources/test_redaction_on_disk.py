"""Redaction in a real daemon: not a byte of a secret is on disk, and detection goes on as before."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from monitor.events import COLUMNS, Kind
from tests.daemons import Daemon, until

SECRET = "sk_live_" + "9zZ8yY7xX6wW5vV4uU3tT2sS"
PIECES = [SECRET[8:20], SECRET[14:26], SECRET[-12:]]
"""Half a secret is none to a detector, and still half a secret on a disk."""

POLICY = """
[[redaction.policies]]
columns = ["*", "event_id", "agent_id", "delegated_by", "agent_instance_id", "source", "session_id",
  "task_id", "correlation_id", "span_id", "parent_span_id", "tool_call_id", "approval_id"]
detectors = ["secrets"]
mode = "fingerprint"
"""

TEXTS = [c.name for c in COLUMNS if c.kind in (Kind.STRING, Kind.LABEL) and c.name != "tenant"]


def _line(name: str, **more: Any) -> bytes:
    fixed = {"event_type": "tool.requested", "agent_id": "clerk", "timestamp": "2026-03-02T09:00:00Z"}
    return json.dumps({**fixed, "event_id": f"e-{name}", "session_id": f"s-{name}", **more}).encode()


def _good() -> Iterator[bytes]:
    for column in TEXTS:
        yield _line(column, **{column: f"see {SECRET}"})
    yield _line("escaped", tool_args=json.dumps({"key": SECRET})).replace(b"sk_live", b"sk\\u005flive")
    yield _line("repeated", tool_args=f'{{"a": "{SECRET}", "a": "x"}}')
    yield _line("torn text", tool_args=f'{{"a": "{SECRET}')
    yield _line("attribute", attributes={"note": SECRET, SECRET: "as a name", "deep": {"a": [SECRET]}})
    yield _line("ours", attributes={"watchkeeper.cut.x": SECRET, "watchkeeper.conflict": SECRET})
    yield _line("unknown", made_up={"deep": [SECRET]})
    yield _line("list", data_accessed=[SECRET, "table"])
    for place in (65_500, 65_520, 98_280, 98_295):
        yield _line(f"long-{place}", tool_result="x" * place + " " + SECRET + " and on" * 9_000)
    yield _line("conflict", tool_args=SECRET)
    yield _line("conflict", tool_args=f"other {SECRET}")
    yield _line("no id", tool_args=SECRET).replace(b'"event_id": "e-no id", ', b"")


def _bad() -> Iterator[bytes]:
    yield _line("bad-type", amount=SECRET)
    yield _line("bad-enum", outcome=SECRET)
    yield _line("bad-tenant", tenant=SECRET)
    yield _line("bad-name", tool_name="x" * 600 + SECRET)
    yield _line("bad-attribute", attributes={"x" * 600 + SECRET: 1})
    yield _line("bad-attributes", attributes=[SECRET])
    yield _line("torn", tool_args=SECRET)[:-4]
    yield _line("torn-within", tool_args="x " * 200 + SECRET)[:-18]
    yield b'{"agent_id": "a", "' + SECRET.encode() + b'": 1, "' + SECRET.encode() + b'": 2}'
    yield _line("twice", attributes={SECRET: 1}, **{SECRET: 2})
    yield SECRET.encode()
    yield b'"' + SECRET.encode()


def _spans() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "desk"
    group.resource.attributes.add(key="resource.note").value.string_value = SECRET
    for number, operation in enumerate(("execute_tool", "chat", "no such operation", "execute_tool", "bad")):
        span = group.scope_spans.add().spans.add(
            name=SECRET, trace_id=b"t" * 16, start_time_unix_nano=1767605400 << 30
        )
        # the last has no id, and is refused
        span.span_id = bytes([number + 1]) * 8 if operation != "bad" else b""
        for name in (
            "gen_ai.tool.call.arguments",
            "gen_ai.tool.name",
            "gen_ai.conversation.id",
            "user.id",
            SECRET,
        ):
            span.attributes.add(key=name).value.string_value = f"see {SECRET}"
        span.attributes.add(key="gen_ai.operation.name").value.string_value = operation
        span.events.add(name=SECRET).attributes.add(key="exception.message").value.string_value = SECRET
        span.status.message = SECRET
        span.status.code = 2
    return request


def _logs() -> bytes:
    record = {"timeUnixNano": "1767605400000000000", "body": {"stringValue": SECRET}, "severityText": SECRET}
    bad = {**record, "traceId": SECRET}
    return json.dumps(
        {"resourceLogs": [{"scopeLogs": [{"scope": {}, "logRecords": [record, bad]}]}]}
    ).encode()


def _send_everything(daemon: Daemon) -> None:
    auth = {"Authorization": f"Bearer {daemon.runtime.token}"}
    types = {
        "json": "application/json",
        "ndjson": "application/x-ndjson",
        "protobuf": "application/x-protobuf",
    }

    def post(path: str, body: bytes, kind: str, *codes: int, **headers: str) -> None:
        sent = {**auth, "Content-Type": types.get(kind, kind)} | {
            k.replace("_", "-"): v for k, v in headers.items()
        }
        answer = httpx.post(f"{daemon.runtime.edge_url}/v1/{path}", content=body, headers=sent, timeout=30)
        assert answer.status_code in codes, (answer.status_code, answer.text[:300])

    lines = b"\n".join([*_good(), *_bad()])
    post("events", lines, "ndjson", 200)
    post("events", gzip.compress(_line("packed", tool_args=SECRET)), "ndjson", 200, Content_Encoding="gzip")
    post("events", gzip.compress(lines)[:-9], "ndjson", 400, Content_Encoding="gzip")
    post("events", gzip.compress(lines, 0)[:-9], "ndjson", 400, Content_Encoding="gzip")
    post("events", b'["' + SECRET.encode(), "json", 400, 422)
    post("events", b'{"a": "' + SECRET.encode() + b'"}', f"text/{SECRET}", 400, 415, 422)
    post("traces", _spans().SerializeToString(), "protobuf", 200)
    post("traces", _spans().SerializeToString()[:-3], "protobuf", 400)
    post("traces", _spans().SerializeToString(), "json", 400)
    post("traces", b"\x0a" + SECRET.encode(), "text/plain", 415)
    post("traces", b'{"resourceSpans": [{"scopeSpans": "' + SECRET.encode() + b'"}]}', "json", 400)
    post("logs", _logs(), "json", 200)
    post("logs", _logs()[:-3], "json", 400)


_SEARCH = """
import json, sqlite3, sys
from pathlib import Path
import pyarrow as pa
from monitor.settings import load
from monitor.sources.spool import Entry, read_sealed, segments
from monitor.store.clickhouse import EventStore
folder, pieces = Path(sys.argv[1]), sys.argv[2:]
found = set()
def search(place, said):
    for piece in pieces:
        if piece in said if isinstance(said, str) else piece.encode() in said:
            found.add(place)
for file in folder.rglob("*"):
    if file.is_file():
        search(file.relative_to(folder).parts[0], file.read_bytes())
for number in segments(folder / "spool"):
    for record in read_sealed(folder / "spool", number):
        search("spool", record.payload)
        if record.kind is Entry.EVENTS:
            table = pa.ipc.open_stream(record.payload).read_all()
            search("spool", repr(table.to_pylist()) + repr(table.schema.metadata))
state = sqlite3.connect(folder / "state.db")
for (name,) in state.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
    search("state.db", repr(state.execute(f"SELECT * FROM {name}").fetchall()))
store = EventStore.open(load(data=folder))
tables = store.writer.query("SELECT name FROM system.tables WHERE database = currentDatabase()").result_rows
for (name,) in tables:
    search("clickhouse", repr(store.writer.query(f"SELECT * FROM `{name}`").result_rows))
rows = store.writer.query("SELECT count() FROM events").result_rows[0][0]
print(json.dumps([rows, sorted(found)]))
"""


def _places(folder: Path) -> list[str]:
    """Everywhere in a stopped daemon's data folder that holds a piece of the secret, packed or not."""
    done = subprocess.run(
        [sys.executable, "-c", _SEARCH, str(folder), *PIECES], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    rows, places = json.loads(done.stdout.splitlines()[-1])
    assert rows > len(TEXTS)
    return list(places)


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_no_byte_of_a_secret_is_anywhere_in_the_data_folder(tmp_path: Path, on: bool) -> None:
    daemon = Daemon(tmp_path / "data", POLICY if on else "")
    try:
        daemon.start()
        _send_everything(daemon)
        until(lambda: daemon.metrics()["detection"]["judged_events"] > len(TEXTS), "everything judged")
        letters = daemon.client.get("/api/v1/dead-letters")
        daemon.stop()
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()
    places = _places(tmp_path / "data")
    log = daemon.log.read_text()
    if on:
        assert places == []
        assert not any(piece in text for piece in PIECES for text in (log, json.dumps(letters)))
    else:
        assert {"clickhouse", "spool", "dead-letters"} <= set(places)


REPEATED = """
[[redaction.policies]]
columns = ["target", "tool_args", "tool_result"]
detectors = ["personal"]
mode = "fingerprint"
"""

RULES = """
title: A mail
id: 11111111-1111-4111-8111-111111111111
name: a_mail
logsource: {product: ai_agent}
detection:
  mail: {event_type: tool.requested, tool_name: send_mail}
  condition: mail
---
title: Three mails to one recipient
id: 22222222-2222-4222-8222-222222222222
level: high
correlation:
  type: event_count
  rules: [a_mail]
  group-by: [target]
  timespan: 1h
  condition: {gte: 3}
"""


def test_detection_correlates_on_a_fingerprint_and_repeats_are_repeats_after_a_restart(
    tmp_path: Path,
) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "same-recipient.yml").write_text(RULES)
    lines = [
        _line(f"m{n}", tool_name="send_mail", target=mail)
        for n, mail in enumerate(
            ("Jane@Example.com", "joe@example.com", "jane@example.com", "jane@example.com")
        )
    ]
    daemon = Daemon(
        tmp_path / "data", f"[detection]\nrules = [{json.dumps(str(tmp_path / 'rules'))}]\n{REPEATED}"
    )
    try:
        daemon.start()
        assert daemon.client.send(lines[:3], live=True)["duplicates"] == 0
        daemon.stop()
        daemon.start()
        assert daemon.client.send(lines, live=True)["duplicates"] == 3
        alert = until(lambda: list(daemon.client.alerts()), "an alert over three mails")[0]
        assert daemon.client.get(f"/api/v1/alerts/{alert['id']}")["event_ids"] == ["e-m0", "e-m2", "e-m3"]
        daemon.stop()
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()
