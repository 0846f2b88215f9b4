"""Redaction before the spool: what is found, what stands in its place, and that nothing of it is on disk."""

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

from monitor.settings import RedactionPolicy, RedactionSettings, SettingsError, load
from monitor.sources.gate import Gate, Rejected
from monitor.sources.keys import Sender
from monitor.sources.redaction.kinds import KINDS
from monitor.sources.redaction.redactor import Redactor
from tests.builders import event
from tests.daemons import Daemon, until

SENDER = Sender("key_1", "default", scopes=frozenset({"ingest"}), name="fleet")

GIVEN = {
    "private_key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7\n-----END RSA PRIVATE KEY-----",
    "aws_access_key": "AKIA" + "Z7QX2MNB4T6Y8W3K",
    "aws_secret_key": "aws_secret_access_key is wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzKEY1",
    "google_api_key": "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "github_token": "ghp_" + "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8",
    "gitlab_token": "glpat-" + "Xy12_zzAB34cdEF56ghI",
    "slack_token": "xoxb-" + "123456789012-abcdefABCDEF",
    "stripe_key": "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "llm_api_key": "sk-ant-" + "api03-Zk3qWw9rT5yU8iO1pA2sD4",
    "watchkeeper_key": "wk_" + "Qm9vVGhlUXVpY2tCcm93bkZveA",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "url_password": "postgres://app:hunter2secret@db.internal:5432/crm",
    "bearer_token": "Authorization: Bearer 9f8e7d6c5b4a39281706",
    "assigned_secret": 'password: "Tr0ub4dor&3x"',
    "email": "jane.doe@example.com",
    "iban": "DE89 3704 0044 0532 0130 00",
    "payment_card": "4111 1111 1111 1111",
    "us_ssn": "219-09-9999",
    "phone": "+49 30 901820-0",
    "ip_address": "203.0.113.77",
}
VALUES = {**GIVEN, "url_password": "hunter2secret", "bearer_token": "9f8e7d6c5b4a39281706"}
VALUES |= {"assigned_secret": "Tr0ub4dor", "aws_secret_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzKEY1"}


def redactor(tmp_path: Path, *policies: dict[str, Any], **patterns: str) -> Redactor:
    settings = RedactionSettings(
        policies=[
            RedactionPolicy(**policy)
            for policy in policies or ({"detectors": ["secrets", "personal", "network"]},)
        ],
        patterns=patterns,
    )
    return Redactor(settings, tmp_path / "redaction.key")


def redacted(made: Redactor, **columns: Any) -> Any:
    record = event(**columns)
    made.record(record, SENDER.name)
    return record


def test_every_detector_has_an_example_here() -> None:
    assert {kind.name for kind in KINDS} == set(GIVEN)


@pytest.mark.parametrize("kind", GIVEN)
def test_each_kind_is_found_in_prose_in_json_and_beside_its_neighbours(tmp_path: Path, kind: str) -> None:
    made = redactor(tmp_path)
    prose = f"Please note: {GIVEN[kind]} and go on."
    nested = json.dumps({"outer": json.dumps({"note": GIVEN[kind], "n": 7})})
    record = redacted(made, task_goal=prose, tool_args=nested, attributes={"note": prose})
    for text in (record.task_goal, record.tool_args, record.attributes["note"]):
        assert VALUES[kind] not in text
        assert json.dumps(VALUES[kind])[1:-1] not in text
        assert "[redacted:" in text
    assert record.task_goal.startswith("Please note: ")
    assert json.loads(json.loads(record.tool_args)["outer"])["n"] == 7


@pytest.mark.parametrize(
    "text",
    [
        "order 4111111111111112 was shipped",
        "DE89 3704 0044 0532 0130 03 is mistyped",
        "000-12-3456 is no such number",
        "the token bucket holds 50 tokens",
        "see section 12.4.1 and figure 3-2-1",
        '{"amount": 1250.5, "currency": "EUR", "invoice": "INV-2026-00042"}',
        "a sk-etch and a task-list",
    ],
)
def test_what_only_looks_like_it_stays(tmp_path: Path, text: str) -> None:
    made = redactor(tmp_path, {"detectors": ["secrets", "personal"]})
    assert redacted(made, tool_args=text).tool_args == text


def test_a_key_that_says_secret_makes_its_value_one(tmp_path: Path) -> None:
    record = redacted(redactor(tmp_path), tool_args='{"api_key": "qwertz-uiop-1", "city": "Bonn"}')
    assert json.loads(record.tool_args) == {"api_key": "[redacted:assigned_secret]", "city": "Bonn"}


def test_a_fingerprint_is_equal_for_equal_values_and_differs_between_installations(tmp_path: Path) -> None:
    prints = {"detectors": ["personal"], "mode": "fingerprint"}
    one, again = redactor(tmp_path, prints), redactor(tmp_path, prints)
    (tmp_path / "other").mkdir()
    other = redactor(tmp_path / "other", prints)
    found = [
        redacted(made, target=value).target
        for made, value in (
            (one, "Jane@Example.com"),
            (again, "jane@example.com"),
            (other, "jane@example.com"),
        )
    ]
    assert found[0] == found[1] != found[2]
    assert found[0].startswith("[email:")
    assert (tmp_path / "redaction.key").stat().st_mode & 0o077 == 0


def test_a_value_is_seen_to_come_from_a_result_into_an_argument(tmp_path: Path) -> None:
    made = redactor(tmp_path, {"detectors": ["personal"], "mode": "fingerprint"})
    result = redacted(made, tool_result='{"email": "jane@example.com"}').tool_result
    args = redacted(made, tool_args="send to jane@example.com now").tool_args
    assert json.loads(result)["email"] in args


def test_policies_hold_by_source_agent_and_column_and_the_first_wins(tmp_path: Path) -> None:
    made = redactor(
        tmp_path,
        {"sources": ["fleet"], "agents": ["quiet-*"], "columns": ["attributes.note"], "mode": "fingerprint"},
        {"sources": ["fleet"], "columns": ["tool_args", "attributes.*"]},
    )
    mail = "jane@example.com"
    quiet = redacted(
        made, agent_id="quiet-one", tool_args=mail, target=mail, attributes={"note": mail, "x": mail}
    )
    assert quiet.attributes["note"].startswith("[email:")
    assert quiet.attributes["x"] == quiet.tool_args == "[redacted:email]"
    assert quiet.target == mail
    other = event(tool_args=mail)
    made.record(other, "another-key")
    assert other.tool_args == mail


def test_ids_are_redacted_only_where_they_are_named(tmp_path: Path) -> None:
    mail = "jane@example.com"
    assert redacted(redactor(tmp_path), session_id=mail).session_id == mail
    named = redactor(tmp_path, {"columns": ["session_id", "agent_id"], "mode": "fingerprint"})
    assert redacted(named, session_id=mail).session_id.startswith("[email:")


def test_own_patterns_are_searched_in_linear_time(tmp_path: Path) -> None:
    made = redactor(tmp_path, {"detectors": ["case"]}, case=r"CASE-\d{4}|(x+x+)+y")
    assert redacted(made, task_goal="see CASE-1234, CASE-9").task_goal == "see [redacted:case], CASE-9"
    assert redacted(made, task_goal="x" * 60_000).task_goal == "x" * 60_000


def test_a_secret_at_the_place_of_the_cut_is_not_halved(tmp_path: Path) -> None:
    settings = load(data=tmp_path, edge={"max_text_bytes": 200})
    gate = Gate(settings.edge, redactor=redactor(tmp_path))
    raw = {**json.loads(_line("cut")), "tool_args": "x" * 190 + " " + GIVEN["github_token"]}
    record = gate.check(json.dumps(raw).encode(), SENDER)
    assert "ghp_" not in record.tool_args


def test_what_is_refused_is_redacted_too_and_so_is_the_reason(tmp_path: Path) -> None:
    gate = Gate(load(data=tmp_path).edge, redactor=redactor(tmp_path))
    mail = "jane@example.com"
    with pytest.raises(Rejected) as refused:
        gate.check(f'{{"agent_id": "a", "{mail}": 1, "{mail}": 2, "tool_args": "{mail}'.encode(), SENDER)
    assert mail.encode() not in (refused.value.raw or b"")
    assert mail not in refused.value.reason
    with pytest.raises(Rejected) as packed:
        gate.check(Rejected("damaged", gzip.compress(mail.encode())), SENDER)
    assert packed.value.raw is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ('[[redaction.policies]]\ndetectors = ["e-mail"]\n', "did you mean email"),
        ('[[redaction.policies]]\ncolumns = ["tool_arg"]\n', "did you mean tool_args"),
        ('[redaction.patterns]\nbad = "("\n', "patterns.bad"),
    ],
)
def test_a_policy_that_cannot_work_is_a_clear_error(tmp_path: Path, given: str, told: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(given)
    with pytest.raises(SettingsError, match=told):
        load(file)


# --- the whole data folder -----------------------------------------------------------------------

SECRET = "sk_live_" + "9zZ8yY7xX6wW5vV4uU3tT2sS"
POLICY = """
[redaction]
[[redaction.policies]]
columns = ["*", "session_id", "agent_id", "event_id", "tool_call_id", "task_id", "correlation_id"]
detectors = ["secrets"]
mode = "fingerprint"
"""


def _line(name: str, **more: Any) -> bytes:
    fixed = {"event_type": "tool.requested", "agent_id": "clerk", "timestamp": "2026-03-02T09:00:00Z"}
    return json.dumps({**fixed, "event_id": f"e-{name}", "session_id": f"s-{name}", **more}).encode()


def _everywhere() -> Iterator[bytes]:
    columns = (
        "task_goal",
        "tool_args",
        "tool_result",
        "model_input",
        "model_output",
        "target",
        "error_message",
    )
    for column in (
        *columns,
        "tool_name",
        "session_id",
        "initiator_id",
        "policy_reason",
        "task_id",
        "agent_id",
    ):
        yield _line(column, **{column: f"see {SECRET}"})
    yield _line("escaped", tool_args=json.dumps({"key": SECRET})).replace(b"sk_live", b"sk\\u005flive")
    yield _line("attribute", attributes={"note": SECRET, SECRET: "as a name", "deep": {"a": [SECRET]}})
    yield _line("unknown", made_up={"deep": [SECRET]})
    yield _line("list", data_accessed=[SECRET, "table"])
    yield _line("long", tool_result="x" * 65_520 + " " + SECRET)
    yield _line("conflict", tool_args=SECRET)
    yield _line("conflict", tool_args=f"other {SECRET}")
    yield _line("bad-type", amount=f"{SECRET}")
    yield _line("bad-enum", outcome=f"{SECRET}")
    yield _line("torn", tool_args=SECRET)[:-4]
    yield b'{"agent_id": "a", "' + SECRET.encode() + b'": 1, "' + SECRET.encode() + b'": 2}'


def _otlp(name: str) -> bytes:
    said = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "pay",
        "gen_ai.tool.call.arguments": SECRET,
    }
    attributes = [{"key": k, "value": {"stringValue": v}} for k, v in said.items()]
    span = {
        "traceId": "ab" * 16,
        "spanId": "cd" * 8,
        "name": SECRET,
        "startTimeUnixNano": "1767605400000000000",
    }
    bad = {**span, "spanId": "00"}
    spans = [{**one, "attributes": attributes} for one in (span, bad)]
    return json.dumps(
        {"resourceSpans": [{"scopeSpans": [{"scope": {"name": name}, "spans": spans}]}]}
    ).encode()


def _send_everything(daemon: Daemon) -> None:
    url = f"{daemon.runtime.edge_url}/v1"
    headers = {"Authorization": f"Bearer {daemon.runtime.token}"}
    lines = b"\n".join(_everywhere())
    ndjson = {**headers, "Content-Type": "application/x-ndjson"}
    assert httpx.post(f"{url}/events", content=lines, headers=ndjson).status_code == 200
    packed = {**ndjson, "Content-Encoding": "gzip"}
    whole = gzip.compress(_line("packed", tool_args=SECRET), mtime=0)
    assert httpx.post(f"{url}/events", content=whole, headers=packed).status_code == 200
    assert httpx.post(f"{url}/events", content=gzip.compress(lines)[:-9], headers=packed).status_code == 400
    assert httpx.post(f"{url}/events", content=b'["' + SECRET.encode(), headers=headers).status_code in (
        400,
        422,
    )
    json_type = {**headers, "Content-Type": "application/json"}
    assert httpx.post(f"{url}/traces", content=_otlp("x"), headers=json_type).status_code == 200
    assert httpx.post(f"{url}/traces", content=_otlp("x")[:-3], headers=json_type).status_code == 400
    assert httpx.post(f"{url}/traces", content=b"\x0a" + SECRET.encode(), headers=headers).status_code == 415


def _found_in(folder: Path, secret: str) -> list[str]:
    """Every place in a data folder where the secret stands: raw, in packed segments, and in ClickHouse."""
    program = """
import sys, json
from pathlib import Path
from monitor.frames import from_bytes
from monitor.settings import load
from monitor.sources.spool import Entry, read_sealed, segments
from monitor.store.clickhouse import EventStore
folder, secret = Path(sys.argv[1]), sys.argv[2]
files = [file for file in folder.rglob("*") if file.is_file()]
found = [str(file.relative_to(folder)) for file in files if secret.encode() in file.read_bytes()]
for number in segments(folder / "spool"):
    for record in read_sealed(folder / "spool", number):
        rows = from_bytes([record.payload]).to_pylist() if record.kind is Entry.EVENTS else record.payload
        if secret in repr(rows):
            found.append(f"segment {number}")
store = EventStore.open(load(data=folder))
for row in store.writer.query("SELECT * FROM events").result_rows:
    if secret in repr(row):
        found.append("clickhouse")
rows = store.writer.query("SELECT count() FROM events").result_rows[0][0]
print(json.dumps([rows, found]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), secret], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    rows, found = json.loads(done.stdout.splitlines()[-1])
    assert rows > 15
    return list(found)


@pytest.mark.parametrize("on", [True, False])
def test_no_byte_of_a_secret_is_anywhere_in_the_data_folder(tmp_path: Path, on: bool) -> None:
    daemon = Daemon(tmp_path / "data", POLICY if on else "")
    try:
        daemon.start()
        _send_everything(daemon)
        until(lambda: daemon.metrics()["detection"]["judged_events"] > 15, "everything judged")
        daemon.stop()
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()
    found = _found_in(tmp_path / "data", SECRET)
    in_log = SECRET in daemon.log.read_text()
    assert (found == []) is on
    if on:
        assert not in_log
    else:
        assert {"clickhouse"} <= set(found)
        assert any(place.startswith("dead-letters") for place in found)


REPEATED = """
[[redaction.policies]]
columns = ["target"]
detectors = ["personal"]
mode = "fingerprint"
"""


def test_detection_still_correlates_on_a_fingerprint_and_repeats_are_still_repeats(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "same-recipient.yml").write_text(
        """
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
    )
    settings = f"[detection]\nrules = [{json.dumps(str(rules))}]\n{REPEATED}"
    lines = [
        _line(f"m{n}", tool_name="send_mail", target=("Jane@example.com", "jane@example.com")[n % 2])
        for n in range(3)
    ]
    daemon = Daemon(tmp_path / "data", settings)
    try:
        daemon.start()
        assert daemon.client.send(lines[:2], live=True)["duplicates"] == 0
        daemon.stop()
        daemon.start()
        assert daemon.client.send(lines, live=True)["duplicates"] == 2
        alert = until(lambda: list(daemon.client.alerts()), "an alert over three mails")[0]
        assert daemon.client.get(f"/api/v1/alerts/{alert['id']}")["event_ids"] == ["e-m0", "e-m1", "e-m2"]
        daemon.stop()
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()
