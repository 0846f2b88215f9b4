"""Redaction at the gate: which policy holds, what becomes of ids, of long texts and of what is refused."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from monitor.checking import check
from monitor.settings import SettingsError, load
from monitor.sources.gate import Gate, Rejected
from monitor.sources.redaction.redactor import Redactor
from monitor.sources.redaction.texts import MARGIN
from monitor.sources.seen import Seen
from tests.builders import event
from tests.sources.redactors import SENDER, redacted, redactor

MAIL = "jane@example.com"
TOKEN = "ghp_" + "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8"
FIXED = {"event_type": "tool.requested", "agent_id": "clerk", "timestamp": "2026-03-02T09:00:00Z"}


def gate(folder: Path, *policies: dict[str, Any], **limits: int) -> Gate:
    return Gate(load(data=folder, edge=limits).edge, redactor=redactor(folder, *policies))


def line(**columns: Any) -> bytes:
    return json.dumps({**FIXED, **columns}).encode()


def test_policies_hold_by_source_agent_dialect_and_column_and_the_first_wins(tmp_path: Path) -> None:
    made = redactor(
        tmp_path,
        {"sources": ["fleet"], "agents": ["quiet-*"], "columns": ["attributes.note"], "mode": "fingerprint"},
        {"dialects": ["openinference*"], "columns": ["target"]},
        {"sources": ["fleet"], "columns": ["tool_args", "attributes"]},
    )
    given = {"tool_args": MAIL, "target": MAIL, "attributes": {"note": MAIL, "x": MAIL}}
    quiet = redacted(made, agent_id="quiet-one", **given)
    assert quiet.attributes["note"].startswith("[email:")
    assert quiet.attributes["x"] == quiet.tool_args == "[redacted:email]"
    assert quiet.target == MAIL
    assert redacted(made, source="openinference/1", **given).target == "[redacted:email]"
    other = event(**given)
    made.record(other, replace(SENDER, name="another-key"), 65_536)
    assert other.tool_args == MAIL


def test_ids_are_redacted_only_where_they_are_named(tmp_path: Path) -> None:
    assert redacted(redactor(tmp_path), session_id=MAIL).session_id == MAIL
    named = redactor(tmp_path, {"columns": ["session_id", "agent_id"], "mode": "fingerprint"})
    assert redacted(named, session_id=MAIL).session_id.startswith("[email:")


def test_a_key_tied_to_an_agent_may_still_send_when_the_agents_name_is_redacted(tmp_path: Path) -> None:
    made = gate(tmp_path, {"columns": ["agent_id"], "mode": "fingerprint"})
    record = made.check(line(agent_id=MAIL), replace(SENDER, agents=(MAIL,)))
    assert (record.identity, record.agent_id[:7]) == ("bound", "[email:")
    with pytest.raises(Rejected, match="not tied"):
        made.check(line(agent_id=record.agent_id), replace(SENDER, agents=(MAIL,)))


def test_attributes_are_redacted_by_name_and_value_whoever_they_claim_to_be_from(tmp_path: Path) -> None:
    given = {
        MAIL: "a",
        "j@example.com": "b",
        "watchkeeper.cut.x": TOKEN,
        "deep": {"a": [TOKEN, 7]},
        "api_key": "short1",
    }
    found = gate(tmp_path).check(line(attributes=given), SENDER).attributes
    assert TOKEN not in str(found)
    assert [found["[redacted:email]"], found["[redacted:email] 2"]] == ["a", "b"]
    assert json.loads(found["deep"]) == {"a": ["[redacted:github_token]", 7]}
    assert found["api_key"] == "[redacted:assigned_secret]"


def test_an_own_pattern_is_searched_in_linear_time_and_may_say_where_a_text_ends(tmp_path: Path) -> None:
    made = redactor(
        tmp_path, {"detectors": ["case", "whole"]}, case=r"CASE-\d{4}|(x+x+)+y", whole=r"^[A-Z]{3}\d{3}$"
    )
    assert redacted(made, task_goal="see CASE-1234, CASE-9").task_goal == "see [redacted:case], CASE-9"
    assert redacted(made, task_goal="x" * 60_000).task_goal == "x" * 60_000
    args = redacted(made, tool_args='{"id": "ABC123", "note": "ABC123 it is"}').tool_args
    assert json.loads(args) == {"id": "[redacted:whole]", "note": "ABC123 it is"}


@pytest.mark.parametrize("place", range(150, 210, 7))
def test_a_secret_at_the_place_of_the_cut_is_not_halved(tmp_path: Path, place: int) -> None:
    record = gate(tmp_path, max_text_bytes=200).check(line(tool_args="x" * place + " " + TOKEN), SENDER)
    assert TOKEN[:8] not in record.tool_args


@pytest.mark.parametrize("as_json", [True, False])
def test_a_text_far_beyond_the_limit_is_cut_before_and_marked_with_its_length(
    tmp_path: Path, as_json: bool
) -> None:
    for place in (190, 200 + MARGIN - 20, 200 + MARGIN + 1000):
        text = "x" * place + f" {TOKEN} " + "y " * 10_000
        text = json.dumps({"text": text}) if as_json else text
        record = gate(tmp_path, max_text_bytes=200).check(
            line(tool_args=text, attributes={"a": text}), SENDER
        )
        for kept, mark in ((record.tool_args, "tool_args"), (record.attributes["a"], "attributes.a")):
            assert TOKEN[:8] not in kept
            assert 150 < len(kept) <= 200
            assert record.attributes[f"watchkeeper.cut.{mark}"] == str(len(text))


def test_half_a_secret_does_not_move_into_what_is_kept_when_the_rest_shrinks(tmp_path: Path) -> None:
    text = f"{MAIL}, " * 20_000
    limit = 20_000
    for shift in range(0, 40, 3):
        window = "z" * shift + text
        half = window[: limit + MARGIN - 12] + " " + TOKEN + "y" * 50_000
        record = gate(tmp_path, max_text_bytes=limit).check(line(tool_args=half), SENDER)
        assert TOKEN[:6] not in record.tool_args
        assert "example" not in record.tool_args


def test_a_repeat_is_a_repeat_after_a_restart_and_an_event_without_an_id_gets_the_same_again(
    tmp_path: Path,
) -> None:
    for columns in ({"event_id": "e1", "tool_args": MAIL}, {"tool_args": MAIL}):
        seen = Seen()
        first = gate(tmp_path).check(line(**columns), SENDER)
        assert len(seen.sort([first]).fresh) == 1
        again = gate(tmp_path).check(line(**columns), SENDER)
        assert (again.event_id, seen.sort([again]).duplicates) == (first.event_id, 1)


def test_events_without_ids_that_differ_in_masked_values_only_are_two(tmp_path: Path) -> None:
    made = gate(tmp_path)
    one, two = (made.check(line(tool_args=mail), SENDER) for mail in (MAIL, "joe@example.com"))
    assert one.tool_args == two.tool_args
    assert one.event_id != two.event_id


def test_an_id_made_of_content_cannot_be_tried_out_without_the_key(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for made_of_content in ("otel_" + "ab" * 12, "line_" + "ab" * 16):
        ids = {
            gate(folder).check(line(event_id=made_of_content), SENDER).event_id
            for folder in (tmp_path, tmp_path, tmp_path / "other")
        }
        assert len(ids) == 2
        assert not any("ab" * 12 in one for one in ids)
        again = gate(tmp_path)
        once = again.check(line(event_id=made_of_content), SENDER).event_id
        assert again.check(line(event_id=once), SENDER).event_id == once


# --- what is refused -----------------------------------------------------------------------------


def refused(made: Gate, item: bytes | Rejected, **sender: str) -> Rejected:
    with pytest.raises(Rejected) as found:
        made.check(item, replace(SENDER, **sender))  # type: ignore[arg-type]
    return found.value


def test_a_refused_record_is_kept_without_its_secrets_and_can_be_sent_again(tmp_path: Path) -> None:
    fault = refused(gate(tmp_path), line(amount="much", tool_args=json.dumps({"to": MAIL})))
    kept = json.loads(fault.raw or b"")
    assert json.loads(kept["tool_args"]) == {"to": "[redacted:email]"}
    assert {**kept, "tool_args": ""} == {**FIXED, "amount": "much", "tool_args": ""}


@pytest.mark.parametrize(
    "raw",
    [
        f'{{"{TOKEN}": 1, "{TOKEN}": 2}}',
        f'{{"a": "{TOKEN}", "a": "x", "event_type": 7}}',
        f'{{"tool_args": "{TOKEN}',
        f'{{"tool_args": "{"x " * 200}{TOKEN[:20]}',
        f'{{"tool_args": "ghp\\u005f{TOKEN[4:]}',
        f'{{"card": 4111 1111 1111 1111, "note": "{TOKEN}"}}',
        f"plain {TOKEN}",
        f"[{TOKEN}] not json",
        '"' + TOKEN,
    ],
)
def test_nothing_of_a_secret_is_kept_of_a_record_that_is_no_json(tmp_path: Path, raw: str) -> None:
    fault = refused(gate(tmp_path), raw.encode())
    for text in ((fault.raw or b"").decode(), fault.reason):
        assert TOKEN[4:16] not in text
        assert "4111" not in text


def test_a_broken_record_keeps_what_tells_nothing(tmp_path: Path) -> None:
    fault = refused(gate(tmp_path), line(tool_args=MAIL, target="db-7").replace(b"T09", b'"T09'))
    assert b"db-7" in (fault.raw or b"")
    assert b"[redacted:email]" in (fault.raw or b"")


@pytest.mark.parametrize(
    "raw",
    [
        gzip.compress(MAIL.encode(), mtime=0),
        b"\x00" + MAIL.encode(),
        b"A" + b"\x12" + TOKEN.encode(),
        b"x" * (2 << 20),
    ],
)
def test_what_is_no_text_or_too_much_of_it_is_not_kept(tmp_path: Path, raw: bytes) -> None:
    assert refused(gate(tmp_path), Rejected("damaged", raw)).raw is None


def test_a_reason_quotes_nothing_that_cannot_be_judged(tmp_path: Path) -> None:
    long = "x" * 25 + "-" + TOKEN
    for name, shown in (
        (TOKEN, "[redacted:github_token]"),
        (long, "'…'"),
        (f"\t{TOKEN}", "'…'"),
        ("due", "'due'"),
    ):
        raw = json.dumps({**FIXED, "attributes": {name: 1}, name: 2}).encode()
        reason = refused(gate(tmp_path), raw).reason
        assert TOKEN[:10] not in reason
        assert shown in reason


def test_refused_protobuf_is_kept_as_protobuf_without_its_secrets(tmp_path: Path) -> None:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "desk"
    span = group.scope_spans.add().spans.add(
        name=f"mail {MAIL}", trace_id=TOKEN[:12].encode(), span_id=b"12345678"
    )
    span.attributes.add(key="db_password").value.string_value = "hunter2"
    span.attributes.add(key="card").value.int_value = 4111111111111111
    deep = span.attributes.add(key="deep").value.kvlist_value.values.add(key=TOKEN)
    deep.value.array_value.values.add().string_value = json.dumps({"a": TOKEN})
    span.attributes.add(key="bytes").value.bytes_value = TOKEN.encode()
    span.events.add(name=TOKEN)
    span.status.message = f"no {TOKEN}"
    span.trace_state = TOKEN
    raw = request.SerializeToString()
    fault = refused(
        gate(tmp_path),
        Rejected("bad", raw, "request"),
        way="/v1/traces",
        content_type="application/x-protobuf",
    )
    kept = ExportTraceServiceRequest.FromString(fault.raw or b"")
    told = str(kept)
    for secret in (TOKEN[:12], MAIL, "hunter2", "4111"):
        assert secret in str(request)
        assert secret not in told
    assert kept.resource_spans[0].resource == group.resource
    assert kept.resource_spans[0].scope_spans[0].spans[0].span_id == b"12345678"
    assert refused(gate(tmp_path), Rejected("bad", raw), content_type="application/x-protobuf").raw is None


def test_without_a_policy_for_the_source_all_is_kept_as_it_came(tmp_path: Path) -> None:
    fault = refused(gate(tmp_path, {"sources": ["another"]}), line(amount="much", tool_args=MAIL))
    assert MAIL.encode() in (fault.raw or b"")


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ('[[redaction.policies]]\ndetectors = ["e-mail"]\n', "did you mean email"),
        ('[[redaction.policies]]\ncolumns = ["tool_arg"]\n', "did you mean tool_args"),
        ('[[redaction.policies]]\ncolumns = ["tool-*"]\n', "no column of text fits"),
        ('[[redaction.policies]]\ncolumns = ["amount"]\n', "holds no text"),
        ('[[redaction.policies]]\ncolumns = ["session_id"]\n', "use mode = 'fingerprint'"),
        ('[[redaction.policies]]\nmode = "hash"\n', "mask.*fingerprint"),
        ('[redaction.patterns]\nbad = "("\n', "patterns.bad"),
        ('[redaction.patterns]\nbad = "x*"\n', "matches where there is nothing"),
        ('[redaction.patterns]\nemail = "x"\n', "built-in"),
    ],
)
def test_a_policy_that_cannot_work_is_a_clear_error(tmp_path: Path, given: str, told: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(given)
    with pytest.raises(SettingsError, match=told):
        load(file)


def test_check_shows_the_policies_and_finds_a_key_that_cannot_be_used(tmp_path: Path) -> None:
    key = tmp_path / "redaction.key"
    key.write_bytes(b"short")
    key.chmod(0o600)
    policy = {"columns": ["target"], "detectors": ["personal"], "mode": "fingerprint"}
    found = check(load(data=tmp_path, redaction={"policies": [policy]}))
    assert any("redaction.key" in fault and "shorter" in fault for fault in found["faults"])
    assert found["redaction"] == ["fingerprint email, iban, payment_card, us_ssn, phone in target"]
    key.unlink()
    assert check(load(data=tmp_path, redaction={"policies": [policy]}))["faults"] == []
    assert not key.exists()


def test_a_redactor_needs_its_key(tmp_path: Path) -> None:
    settings = load(data=tmp_path, redaction={"policies": [{}]}).redaction
    with pytest.raises(OSError, match="No such file"):
        Redactor(settings, tmp_path / "missing" / "redaction.key")
