"""Redaction before the spool: what is found, what stands in its place, and that nothing of it is on disk."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.sources.redaction.kinds import KINDS, Kind
from monitor.sources.redaction.scrubber import Scrubber
from monitor.sources.redaction.values import fingerprint, load_key, masked
from tests.sources.redactors import SENDER, redacted, redactor

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
    "npm_token": "npm_" + "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8",
    "google_oauth": "GOCSPX-" + "Zk3qWw9rT5yU8iO1pA2sD4fG",
    "huggingface_token": "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
    "sendgrid_key": "SG." + "Zk3qWw9rT5yU8iO1pA2sD4.Zk3qWw9rT5yU8iO1pA2sD4fGhJ",
    "slack_webhook": "https://hooks.slack.com/services/T00000000/B00000000/XXXXabcd1234efgh",
    "authorization": "Authorization: Basic YXBwOmh1bnRlcjI=",
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
VALUES |= {"authorization": "YXBwOmh1bnRlcjI=", "slack_webhook": "services/T00000000/B0"}
VALUES |= {"assigned_secret": "Tr0ub4dor", "aws_secret_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzKEY1"}


MASKED = Scrubber(KINDS, [], lambda kind, _value: masked(kind))
PRINTED = Scrubber(KINDS, [], lambda kind, value: fingerprint(b"k" * 32, kind, value))


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
        '{"max_tokens": 100000, "input_tokens": 52311, "authorization": "granted by the board"}',
        '{"a":  1.50, "a": 12345678901234567890123, "b": [1e400, "\\u00e9"]}',
        "[INFO] nothing to see, {not json either",
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


@pytest.mark.parametrize("kind", GIVEN)
def test_what_is_scrubbed_once_stays_as_it_is(kind: str) -> None:
    for scrubber in (MASKED, PRINTED):
        for text in (GIVEN[kind], json.dumps({"password": GIVEN[kind], "nested": json.dumps([GIVEN[kind]])})):
            once = scrubber.text(text)
            assert once != text
            assert scrubber.text(once) == once


@given(st.lists(st.one_of(st.sampled_from([*GIVEN.values(), '"', "\\", "{", "}", "[", ":", ","]), st.text())))
def test_any_mixture_of_words_is_scrubbed_to_something_that_stays(parts: list[str]) -> None:
    once = PRINTED.text(" ".join(parts))
    assert PRINTED.text(once) == once


@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(),
        ),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    )
)
def test_json_stays_json_of_the_same_form(value: object) -> None:
    (clean,) = json.loads(MASKED.text(json.dumps([value])))
    if isinstance(value, dict | list):
        assert len(clean) == len(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "ghp_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8", "a": "x"}',
        '{"a": "ghp\\u005fa1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8"}',
        '[INFO] ghp_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8 "quoted"',
        '{"a": "torn ghp_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8',
        '{"ghp_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8": 1}\n{"b": 2}',
    ],
    ids=["a key that stands twice", "an escape", "a bracket that opens no list", "half a record", "lines"],
)
def test_no_form_of_json_hides_a_value(text: str) -> None:
    assert "a1b2c3d4" not in MASKED.text(text)


def test_json_keeps_its_spaces_its_numbers_and_its_repeated_keys() -> None:
    text = '{ "n": 1.50,  "mail": "a@example.com", "n": 123456789012345678901234567890, "e": "\\u00e9"}'
    assert MASKED.text(text) == text.replace("a@example.com", "[redacted:email]")


def test_a_number_in_json_is_redacted_too() -> None:
    assert json.loads(MASKED.text('{"card": 4111111111111111}')) == {"card": "[redacted:payment_card]"}


@pytest.mark.parametrize("value", ["correct horse battery staple", "[begins-like-a-list", "1234567"])
def test_under_a_key_that_says_secret_all_of_the_value_goes(value: str) -> None:
    clean = json.loads(MASKED.text(json.dumps({"dbPassword": value, "nested": {"passwords": [value]}})))
    assert clean == {
        "dbPassword": "[redacted:assigned_secret]",
        "nested": {"passwords": ["[redacted:assigned_secret]"]},
    }


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("4111 1111 1111 1111 12/28", "[redacted:payment_card] 12/28"),
        ("order 93842 4111 1111 1111 1111", "order 93842 [redacted:payment_card]"),
        (
            "2026 4111 1111 1111 1111, 3782 822463 10005",
            "2026 [redacted:payment_card], [redacted:payment_card]",
        ),
        ("219-09-9999 4111-1111-1111-1111", "[redacted:us_ssn] [redacted:payment_card]"),
        ("?key%3Dsk_live_4eC39HqLyjWDarjtT1zdp7dc", "?key%3D[redacted:stripe_key]"),
        ("?key%3Dsk-ant-api03-Zk3qWw9rT5yU8iO1pA2sD4", "?key%3D[redacted:llm_api_key]"),
        ("DE89 3704 0044 0532 0130 00 PAID", "[redacted:iban] PAID"),
        ("NL91ABNA0417164300", "[redacted:iban]"),
        ("j\u00fcrgen@example.com", "[redacted:email]"),
        ("postgres://app:p@ss@db:5432/x", "postgres://app:[redacted:url_password]@db:5432/x"),
        ("call (555) 234-5678", "call [redacted:phone]"),
        ("2001:db8::ff00:42:8329", "[redacted:ip_address]"),
        ("at 12:30:45 version 1.2.3.400", "at 12:30:45 version 1.2.3.400"),
    ],
)
def test_a_value_is_found_whole_and_its_neighbours_stay(text: str, left: str) -> None:
    assert MASKED.text(text) == left


@pytest.mark.parametrize(
    "hostile",
    [
        "-----BEGIN PRIVATE KEY-----" * 2_400,
        "aws secret_access_key password=" * 2_100,
        "1 " * 32_000,
        "DE89 " * 13_000,
        "://a:" * 13_000,
        "a.b@" * 16_000,
        '{"password":' * 5_000,
        "\\u0041" * 10_000,
        "AAAA1111 " * 7_000,
        ":" * 64_000,
        "sk-" * 21_000,
        "bearer " + "a" * 64_000,
        "4111-1111-1111-1112 " * 3_200,
    ],
    ids=lambda text: text[:20],
)
def test_no_text_of_64_kib_takes_long(hostile: str) -> None:
    begun = time.process_time()
    MASKED.text(hostile)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_time_of_each_detector_grows_with_the_text_alone(kind: Kind) -> None:
    signs = [*kind.hints, *kind.words, *(shape.decode().replace("d", "7") for shape in kind.shapes)]
    for sign in signs:
        for between in ("", " ", "=", ".", "a7" * 20 + " "):
            begun = time.process_time()
            MASKED.text(((sign + between) * 70_000)[:65_536])
            assert time.process_time() - begun < 2, (sign, between)


def test_thousands_of_values_of_an_own_pattern_take_one_pass(tmp_path: Path) -> None:
    made = redactor(tmp_path, {"detectors": ["order"]}, order="ORD-[0-9]{6}")
    text = " ".join(f"ORD-{number:06d}" for number in range(5_900))
    begun = time.process_time()
    record = redacted(made, tool_result=text)
    assert time.process_time() - begun < 2
    assert record.tool_result == " ".join(["[redacted:order]"] * 5_900)


@pytest.mark.parametrize(
    "text", ['{"t":"line\\nORD-123456"}', '{"t":"\\tORD-123456"}', '["a\\\\","ORD-123456"]']
)
def test_an_own_pattern_is_found_behind_any_escape(tmp_path: Path, text: str) -> None:
    made = redactor(tmp_path, {"detectors": ["order"]}, order=r"\bORD-[0-9]{6}\b")
    assert "123456" not in redacted(made, tool_result=text).tool_result


LONG_SECRET = "Ab1" * 900


@pytest.mark.parametrize(
    "text",
    [
        f"token={LONG_SECRET}",
        f"refresh_token: 0.{LONG_SECRET}",
        f"Authorization: Bearer {LONG_SECRET}",
        f"SECRET_KEY={LONG_SECRET}",
        f"tool --password {LONG_SECRET} --verbose",
        f"password=({LONG_SECRET[:40]}({LONG_SECRET[:40]})9",
        json.dumps({"secret_key": LONG_SECRET}),
        json.dumps({"tokens": [LONG_SECRET, LONG_SECRET]}),
        json.dumps({"password": {"v": LONG_SECRET}}),
        json.dumps({"password": [{"x": 1}, LONG_SECRET], "other": 1}),
    ],
)
def test_nothing_is_left_of_a_secret_that_its_name_tells(text: str) -> None:
    assert "Ab1" not in MASKED.text(text)
    assert MASKED.text(MASKED.text(text)) == MASKED.text(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"cost_per_token":0.00015,"max_token":4096}',
        '{"usage":{"input_tokens":8123,"output_tokens":4096}}',
        "a per-token price and a token budget",
        '{"password":{},"note":"harmless words"}',
    ],
)
def test_numbers_of_tokens_and_words_beside_a_name_stay(text: str) -> None:
    assert MASKED.text(text) == text
    assert MASKED.text("4096", "gen_ai.usage.input_tokens") == "4096"


def test_a_refused_otlp_record_in_json_keeps_no_secret_that_its_attribute_names(tmp_path: Path) -> None:
    sender = replace(SENDER, way="/v1/traces", content_type="application/json")
    said = [
        {"key": "db.password", "value": {"stringValue": "hunter2hunter"}},
        {"value": {"arrayValue": {"values": [{"stringValue": "correcthorse"}]}}, "key": "api_key"},
        {
            "key": "secret",
            "value": {"kvlistValue": {"values": [{"key": "a", "value": {"intValue": "77443322"}}]}},
        },
        {"key": "note", "value": {"stringValue": "harmless"}},
    ]
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "x", "attributes": said}]}]}]}
    kept = redactor(tmp_path, {"detectors": ["secrets"]}).raw(json.dumps(body).encode(), sender)
    assert kept is not None
    assert not [word for word in (b"hunter2", b"correcthorse") if word in kept]
    assert b"harmless" in kept
    assert redactor(tmp_path).raw(json.dumps(body).encode()[:-9], sender) is None


def test_the_key_is_made_once_and_refused_where_everybody_may_read_it(tmp_path: Path) -> None:
    key = load_key(tmp_path / "key")
    assert load_key(tmp_path / "key") == key
    assert [file.name for file in tmp_path.iterdir()] == ["key"]
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(OSError, match="chmod"):
        load_key(tmp_path / "key")
    (tmp_path / "short").write_bytes(b"x")
    (tmp_path / "short").chmod(0o600)
    with pytest.raises(OSError, match="shorter"):
        load_key(tmp_path / "short")
