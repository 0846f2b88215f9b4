"""Every modifier and value type of Sigma, judged on one event (specification 2.1.0)."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.builders import event
from tests.detectors.sigma.sigma_rules import detection, found, rules


def matches(selection: str, condition: str = "s", **columns: Any) -> bool:
    columns.setdefault("at", 0.0)
    return bool(found(rules(detection(selection, condition)), event(**columns)))


EQUAL = [
    ("{tool_name: Shell}", {"tool_name": "sHELL"}, True),
    ("{tool_name: shell}", {"tool_name": "shells"}, False),
    ("{tool_name: ÄPFEL}", {"tool_name": "äpfel"}, True),
    ("{tool_name|cased: Shell}", {"tool_name": "Shell"}, True),
    ("{tool_name|cased: Shell}", {"tool_name": "shell"}, False),
    ("{tool_name: [a, b]}", {"tool_name": "B"}, True),
    ("{tool_name: [a, b]}", {"tool_name": "c"}, False),
    ("{tool_name: ''}", {"tool_name": ""}, True),
    ("{tool_name: ''}", {"tool_name": "x"}, False),
    ("{tool_name: ''}", {"tool_name": None}, False),
    ("{tool_name: null}", {"tool_name": None}, True),
    ("{tool_name: null}", {"tool_name": ""}, False),
    ("{tool_name: [null, x]}", {"tool_name": None}, True),
    ("{tool_name: 'a*c'}", {"tool_name": "abbbC"}, True),
    ("{tool_name: 'a*c'}", {"tool_name": "a\nc"}, True),
    ("{tool_name: 'a*c'}", {"tool_name": "xabc"}, False),
    ("{tool_name: 'a?c'}", {"tool_name": "abc"}, True),
    ("{tool_name: 'a?c'}", {"tool_name": "ac"}, False),
    (r"{tool_name: 'a\*c'}", {"tool_name": "a*c"}, True),
    (r"{tool_name: 'a\*c'}", {"tool_name": "abc"}, False),
    (r"{tool_name: 'a\\*c'}", {"tool_name": r"a\xxc"}, True),
    (r"{tool_name: 'C:\dir'}", {"tool_name": r"c:\DIR"}, True),
    ("{tool_name: '*'}", {"tool_name": ""}, True),
    ("{tool_name: '*'}", {"tool_name": None}, False),
    ("{tool_name: 'a.c(+'}", {"tool_name": "a.c(+"}, True),
    ("{tool_name: 'a.c'}", {"tool_name": "abc"}, False),
    ("{event_type: Tool.Requested}", {"tool_name": "x"}, True),
]

AFFIX = [
    ("{tool_args|contains: RM -rf}", {"tool_args": "sudo rm -RF /"}, True),
    ("{tool_args|contains: 'a.b'}", {"tool_args": "xaxbx"}, False),
    ("{tool_args|contains|cased: RM}", {"tool_args": "rm"}, False),
    ("{tool_args|cased|contains: RM}", {"tool_args": "xRMx"}, True),
    ("{tool_args|contains: [x1, x2]}", {"tool_args": "..X2.."}, True),
    ("{tool_args|contains|all: [x1, x2]}", {"tool_args": "x2 x1"}, True),
    ("{tool_args|contains|all: [x1, x2]}", {"tool_args": "x2"}, False),
    ("{tool_args|startswith: Ab}", {"tool_args": "aBc"}, True),
    ("{tool_args|startswith: Ab}", {"tool_args": "xab"}, False),
    ("{tool_args|endswith: ['.Env', '.pem']}", {"tool_args": "/srv/.ENV"}, True),
    ("{tool_args|endswith: .env}", {"tool_args": ".env.example"}, False),
    ("{tool_args|contains: 'a*b'}", {"tool_args": "..a..b.."}, True),
    ("{tool_args|contains: ''}", {"tool_args": "anything"}, True),
    ("{tool_args|neq: x}", {"tool_args": "y"}, True),
    ("{tool_args|neq: x}", {"tool_args": "X"}, False),
    ("{tool_args|neq: x}", {"tool_args": None}, True),
    ("{tool_args|neq: [x, y]}", {"tool_args": "z"}, True),
    ("{tool_args|neq: [x, y]}", {"tool_args": "y"}, False),
    ("{tool_args|windash|contains: ' -enc'}", {"tool_args": "pwsh /enc"}, True),
    ("{tool_args|windash|contains: ' -enc'}", {"tool_args": "pwsh –enc"}, True),
    ("{tool_args|exists: true}", {"tool_args": ""}, True),
    ("{tool_args|exists: true}", {"tool_args": None}, False),
    ("{tool_args|exists: false}", {"tool_args": None}, True),
]

REGEX = [
    ("{tool_args|re: 'a+b'}", {"tool_args": "xaabx"}, True),
    ("{tool_args|re: 'a+b'}", {"tool_args": "AAB"}, False),
    ("{tool_args|re: '^a.c$'}", {"tool_args": "abcd"}, False),
    ("{tool_args|re|i: 'a+b'}", {"tool_args": "AAB"}, True),
    ("{tool_args|re|m: '^b$'}", {"tool_args": "a\nb\nc"}, True),
    ("{tool_args|re: '^b$'}", {"tool_args": "a\nb\nc"}, False),
    ("{tool_args|re|s: 'a.b'}", {"tool_args": "a\nb"}, True),
    ("{tool_args|re: 'a.b'}", {"tool_args": "a\nb"}, False),
    ("{tool_args|re|i|s: 'A.b'}", {"tool_args": "a\nB"}, True),
    ("{tool_args|re: ['x1|x2', 'y']}", {"tool_args": "y"}, True),
    ("{tool_args|re: ['(?i)x', 'y']}", {"tool_args": "Y"}, False),
    (r"{tool_args|re: 'a\*b'}", {"tool_args": "a*b"}, True),
    ("{tool_args|re|startswith: 'x1|x2'}", {"tool_args": "x2..."}, True),
]

NUMBERS = [
    ("{input_tokens: 5}", {"input_tokens": 5}, True),
    ("{input_tokens: '5'}", {"input_tokens": 5}, True),
    ("{input_tokens: [4, 5]}", {"input_tokens": 5}, True),
    ("{input_tokens|gt: 5}", {"input_tokens": 5}, False),
    ("{input_tokens|gte: 5}", {"input_tokens": 5}, True),
    ("{input_tokens|lt: 5}", {"input_tokens": 4}, True),
    ("{input_tokens|lte: 5}", {"input_tokens": 6}, False),
    ("{input_tokens|gt: 5.5}", {"input_tokens": 6}, True),
    ("{input_tokens|neq: 5}", {"input_tokens": 6}, True),
    ("{input_tokens|neq: 5}", {"input_tokens": None}, True),
    ("{input_tokens|lt: 5}", {"input_tokens": None}, False),
    ("{input_tokens: null}", {"input_tokens": None}, True),
    ("{input_tokens: '*'}", {"input_tokens": 0}, True),
    ("{cost_usd|gt: 0.5}", {"cost_usd": 0.75}, True),
    ("{cost_usd|gt: 0.5}", {"cost_usd": float("nan")}, False),
    ("{amount|lt: 0}", {"amount": -1e300}, True),
    ("{retries|gte: 3}", {"attributes": {"retries": "10"}}, True),
    ("{retries|gte: 3}", {"attributes": {"retries": "ten"}}, False),
    ("{retries|gte: 3}", {"attributes": {"retries": "nan"}}, False),
    ("{retries|gte: 3}", {"attributes": {}}, False),
    ("{retries: 3}", {"attributes": {"retries": "3.0"}}, True),
    ("{flag: true}", {"attributes": {"flag": "True"}}, True),
    ("{flag: true}", {"attributes": {"flag": "false"}}, False),
]

NETWORKS = [
    ("{source_ip|cidr: 10.0.0.0/8}", {"source_ip": "10.255.3.4"}, True),
    ("{source_ip|cidr: 10.0.0.0/8}", {"source_ip": "11.0.0.1"}, False),
    ("{source_ip|cidr: 10.0.0.0/8}", {"source_ip": "10.evil.example"}, False),
    ("{source_ip|cidr: 192.168.4.0/23}", {"source_ip": "192.168.5.9"}, True),
    ("{source_ip|cidr: [10.0.0.0/8, 'fd00::/8']}", {"source_ip": "FD12::1"}, True),
    ("{source_ip|cidr: 10.0.0.0/8}", {"source_ip": "::ffff:10.0.0.1"}, True),
    ("{source_ip|cidr: 10.0.0.0/8}", {"source_ip": None}, False),
]

REFERENCES = [
    ("{reviewer_id|fieldref: initiator_id}", {"reviewer_id": "Ann", "initiator_id": "ann"}, True),
    ("{reviewer_id|fieldref: initiator_id}", {"reviewer_id": "ann", "initiator_id": "bob"}, False),
    ("{reviewer_id|fieldref: initiator_id}", {}, False),
    ("{target|fieldref|startswith: tool_name}", {"target": "mail:x", "tool_name": "mail"}, True),
    ("{target|fieldref|endswith: tool_name}", {"target": "mail:x", "tool_name": "mail"}, False),
    ("{target|fieldref|contains: tool_name}", {"target": "a mail b", "tool_name": "MAIL"}, True),
    ("{input_tokens|fieldref: output_tokens}", {"input_tokens": 3, "output_tokens": 3}, True),
    ("{owner|fieldref: agent_id}", {"attributes": {"owner": "Invoice-Agent"}}, True),
]

LISTS = [
    ("{data_accessed: Customers}", {"data_accessed": ["orders", "customers"]}, True),
    ("{data_accessed|contains: pay}", {"data_accessed": ["orders", "payments"]}, True),
    ("{data_accessed|contains|all: [ord, pay]}", {"data_accessed": ["orders", "payments"]}, True),
    ("{data_accessed|contains|all: [ord, hr]}", {"data_accessed": ["orders", "payments"]}, False),
    ("{data_accessed|re: '^hr_'}", {"data_accessed": ["x", "hr_salaries"]}, True),
    ("{data_accessed|neq: orders}", {"data_accessed": ["orders", "x"]}, False),
    ("{data_accessed|neq: orders}", {"data_accessed": ["x"]}, True),
    ("{data_accessed|gt: 5}", {"data_accessed": ["3", "x", "7"]}, True),
    ("{data_accessed: null}", {"data_accessed": []}, True),
    ("{data_accessed: null}", {"data_accessed": ["x"]}, False),
    ("{data_accessed|exists: true}", {"data_accessed": None}, False),
]

MOMENT = {"timestamp": datetime(2026, 3, 2, 23, 5, tzinfo=UTC)}
TIMES = [
    ("{timestamp|hour: 23}", MOMENT, True),
    ("{timestamp|hour|gte: 22}", MOMENT, True),
    ("{timestamp|minute|lt: 5}", MOMENT, False),
    ("{timestamp|day: 2, timestamp|month: 3, timestamp|year: 2026}", MOMENT, True),
    ("{timestamp|week: 10}", MOMENT, True),
    ("{approval_expires_at|hour: 1}", {}, False),
    ("{approval_expires_at: null}", {}, True),
]

ALIASES = [
    ("{gen_ai.tool.name: shell}", {"tool_name": "shell"}, True),
    ("{gen_ai.usage.input_tokens|gt: 9}", {"input_tokens": 10}, True),
    ("{gen_ai.operation.name: execute_tool}", {"event_type": "tool.executed"}, True),
    ("{gen_ai.operation.name: EXECUTE_TOOL}", {"event_type": "tool.executed"}, True),
    ("{gen_ai.operation.name: execute_tool}", {"event_type": "tool.requested"}, False),
    ("{gen_ai.operation.name: [chat, text_completion]}", {"event_type": "model.invoked"}, True),
    ("{gen_ai.operation.name|endswith: _agent}", {"event_type": "task.created"}, True),
    ("{gen_ai.operation.name|re: '^generate'}", {"event_type": "model.invoked"}, True),
    ("{gen_ai.operation.name|neq: chat}", {"event_type": "task.created"}, True),
    ("{gen_ai.operation.name: null}", {"event_type": "policy.checked"}, True),
    ("{gen_ai.operation.name|exists: true}", {"event_type": "tool.executed"}, True),
    ("{attributes.currency: eur}", {"attributes": {"currency": "EUR"}}, True),
    ("{currency: eur}", {"attributes": {"currency": "EUR"}}, True),
]


@pytest.mark.parametrize(
    ("selection", "columns", "expected"),
    [*EQUAL, *AFFIX, *REGEX, *NUMBERS, *NETWORKS, *REFERENCES, *LISTS, *TIMES, *ALIASES],
)
def test_a_selection_matches_as_the_specification_says(
    selection: str, columns: dict[str, Any], expected: bool
) -> None:
    assert matches(selection, **columns) is expected


@pytest.mark.parametrize("modifier", ["base64", "utf16|base64", "utf16be|base64", "wide|base64"])
def test_an_encoded_word_is_found_inside_a_text(modifier: str) -> None:
    codec = {
        "base64": "utf-8",
        "utf16|base64": "utf-16",
        "utf16be|base64": "utf-16-be",
        "wide|base64": "utf-16-le",
    }
    encoded = b64encode("rm -rf".encode(codec[modifier])).decode()
    selection = f"{{tool_args|{modifier}|contains: rm -rf}}"
    assert matches(selection, tool_args=f"echo {encoded} | x")
    assert not matches(selection, tool_args="echo rm -rf | x")


@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize(
    ("modifier", "codec"), [("base64offset", "utf-8"), ("wide|base64offset", "utf-16-le")]
)
def test_an_encoded_word_is_found_at_any_offset(offset: int, modifier: str, codec: str) -> None:
    encoded = b64encode(b"x" * offset + "/etc/shadow".encode(codec) + b"yz").decode()
    assert matches(f"{{tool_args|{modifier}|contains: /etc/shadow}}", tool_args=encoded)


CONDITIONS = [
    ("a and b", "ab", True),
    ("a and b", "a", False),
    ("a or b", "b", True),
    ("not a", "b", True),
    ("not a", "a", False),
    ("a and not (b or c)", "ac", False),
    ("a and not (b or c)", "a", True),
    ("not a and not b or c", "", True),
    ("1 of sel_*", "x", True),
    ("1 of sel_*", "a", False),
    ("any of sel_*", "y", True),
    ("all of sel_*", "x", False),
    ("all of sel_*", "xy", True),
    ("1 of them", "b", True),
    ("1 of them", "", False),
    ("all of them", "abcxy", True),
    ("a and not 1 of sel_*", "ay", False),
]


@pytest.mark.parametrize(("condition", "letters", "expected"), CONDITIONS)
def test_a_condition_combines_selections(condition: str, letters: str, expected: bool) -> None:
    names = {"a": "a", "b": "b", "c": "c", "x": "sel_x", "y": "sel_y"}
    body = "".join(f"  {name}: {{tool_args|contains: {letter}}}\n" for letter, name in names.items())
    assert matches(body, condition, tool_args=letters) is expected


def test_several_conditions_are_alternatives() -> None:
    body = "  a: {tool_name: x}\n  b: {tool_name: y}\n"
    assert matches(body, "[a, b]", tool_name="y")


def test_a_list_of_mappings_is_any_of_them_and_a_mapping_all_of_its_fields() -> None:
    selection = "[{tool_name: x, target: t}, {tool_name: y}]"
    assert matches(selection, tool_name="y")
    assert matches(selection, tool_name="x", target="t")
    assert not matches(selection, tool_name="x", target="other")


def test_not_over_an_absent_field_is_true() -> None:
    assert matches(
        "  s: {event_type: tool.requested}\n  f: {target|contains: x}\n", "s and not f", target=None
    )
    assert matches("  s: {event_type: tool.requested}\n  f: {nosuch: x}\n", "s and not f")


def test_an_unmapped_record_is_judged_by_no_rule() -> None:
    assert not matches("{agent_id: '*'}", event_type="telemetry.unmapped")


def test_rules_that_share_leaves_are_judged_each_on_its_own() -> None:
    text = detection("{tool_name: x, target: a}", number=1) + detection("{tool_name: x, target: b}", number=2)
    findings = found(rules(text), event(tool_name="x", target="b"), event(at=1, tool_name="x", target="a"))
    assert [(finding.row, finding.title) for finding in findings] == [(0, "rule 2"), (1, "rule 1")]
