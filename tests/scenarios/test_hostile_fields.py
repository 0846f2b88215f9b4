"""Whatever an agent puts into a field, it breaks no log line, page, terminal, metric, message or JSON."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.alerting.slack_api import TOKEN, SlackApi
from tests.daemons import Daemon, running, until

NASTY = {
    "ansi": "\x1b[2J\x1b]0;owned\x07\x1b[31mred\x9b31m",
    "lines": 'a\r\n{"event": "forged", "level": "info"}\nb\x0b\x0c\x85\u2028\u2029c',
    "nul": "a\x00b",
    "backspace": "rm -rf /\x08\x08\x08\x08\x08\x08\x08\x08ls",
    "bidi": "invoice\u202egnp.exe\u2066\u2069",
    "zero width": "pay\u200bpal\u200d\ufeff\u2060\U000e0041",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg/onload=alert(1)>",
    "csv": '=cmd|"/c calc"!A1',
    "csv plus": "+1+cmd",
    "csv at": "@SUM(1)",
    "slack": "<!channel> <@U123> <https://evil.example|click> *bold* `code`",
    "json": '"}],"injected":true,{"x":"',
    "jinja": "{{ 7 * 191 }}{% for x in y %}",
    "format": "%s%n{0}{__class__}",
    "path": "../../../etc/passwd",
    "rich": "[bold red]styled[/] [link=https://evil.example]x[/link]",
    "sql": "'); DROP TABLE events; --",
    "marks": "e" + "\u0301" * 60,
    "nonsense": "\U0010ffff\ufdd0\ue000",
    "prometheus": 'x"} 1\nforged_metric 7',
    "surrogates": "\ud83d\ude00",
    "long": "x" * 500,
}

FIELDS = ("agent_id", "session_id", "tool_name", "tool_args", "event_id", "policy_reason", "attribute")

RULE = """
title: Anything of the hostile tests
id: 6f2f4a52-2e0c-4f6b-9d57-0d8b6f4f2f10
status: test
description: fires at every event of this file
level: high
logsource: {product: ai_agent, category: telemetry}
detection:
  told: {business_role: hostile, tool_args: '*', policy_reason: '*', tool_name: '*'}
  condition: told
runbook: [Look.]
"""


def hostile(field: str, name: str) -> dict[str, Any]:
    """An event with a nasty value in one field, else harmless."""
    value = NASTY[name]
    event: dict[str, Any] = {
        "event_type": "tool.executed",
        "timestamp": "2026-11-23T09:00:00Z",
        "agent_id": "plain-agent",
        "session_id": f"{field} {name}",
        "business_role": "hostile",
        "tool_name": "tool",
        "tool_args": "args",
        "policy_reason": "reason",
        "event_id": f"{field}-{name}",
        "attributes": {},
    }
    if field == "attribute":
        event["attributes"] = {value: value}
    else:
        event[field] = value
    return event


@pytest.fixture(scope="module")
def slack() -> Iterator[SlackApi]:
    with SlackApi() as api:
        yield api


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, slack: SlackApi) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "rule.yml").write_text(RULE)
    settings = (
        f"[detection]\nrules = [{json.dumps(str(folder / 'rule.yml'))}]\n"
        f'[slack]\ntoken = "{TOKEN}"\nbase_url = "{slack.url}"\nmin_level = "low"\n'
    )
    with running(folder / "data", settings) as started:
        lines = [json.dumps(hostile(field, name)).encode() for field in FIELDS for name in NASTY]
        for start in range(0, len(lines), 50):
            receipt = started.client.send(lines[start : start + 50], live=True)
            assert receipt["rejected"] == []
        until(lambda: len(list(started.client.alerts())) >= len(lines), "an alert of each", 60)
        yield started


@pytest.fixture(scope="module")
def alerts(daemon: Daemon) -> list[dict[str, Any]]:
    return [daemon.client.get(f"/api/v1/alerts/{one['id']}") for one in daemon.client.alerts()]


def unseen(text: str) -> list[str]:
    """Characters that a terminal or an eye must not meet; line ends and tabs are none."""
    bad = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return sorted({f"U+{ord(c):04X}" for c in text if unicodedata.category(c) in bad and c not in "\n\t"})


def test_each_value_is_kept_exactly_as_it_was_sent(daemon: Daemon, alerts: list[dict[str, Any]]) -> None:
    assert {one["agent_id"] for one in alerts} >= {
        NASTY[name].encode("utf-16", "surrogatepass").decode("utf-16") for name in NASTY
    }


def test_a_lone_surrogate_is_refused_with_a_reason_and_nothing_else_is(daemon: Daemon) -> None:
    lines = [json.dumps(hostile("agent_id", "ansi") | {"event_id": "lone", "agent_id": "\ud800"}).encode()]
    receipt = daemon.client.send([*lines, json.dumps(hostile("tool_args", "csv")).encode()], live=True)
    assert (receipt["accepted"], receipt["duplicates"]) == (1, 1)
    assert receipt["rejected"][0]["reason"].isprintable()


def test_a_value_beyond_the_bounds_is_cut_or_refused(daemon: Daemon) -> None:
    long = "y" * 200_000
    events = [hostile("tool_args", "csv") | {"event_id": f"long-{n}"} for n in range(3)]
    events[0] |= {"tool_args": long}
    events[1] |= {"agent_id": long}
    events[2] |= {"attributes": {long: "1"}}
    receipt = daemon.client.send([json.dumps(one).encode() for one in events], live=True)
    assert receipt["accepted"] == 1
    assert [fault["index"] for fault in receipt["rejected"]] == [1, 2]
    assert all(len(fault["reason"]) < 300 for fault in receipt["rejected"])


def test_the_log_is_one_json_object_a_line(daemon: Daemon) -> None:
    until(lambda: b'"own alert"' in daemon.log.read_bytes(), "the product's own alert in the log", 60)
    lines = daemon.log.read_bytes().decode().rstrip("\n").split("\n")
    banner = [line for line in lines if line.startswith(("events ", "console ", "sign in "))]
    records = [json.loads(line) for line in lines if line not in banner]
    assert not unseen("".join(lines))
    assert "forged" not in {record["event"] for record in records}
    assert {record["process"] for record in records} <= {"supervisor", "edge", "detection", "console"}
    assert {"own alert", "judging"} <= {record["event"] for record in records}


def test_what_commands_print_has_no_control_characters(daemon: Daemon, alerts: list[dict[str, Any]]) -> None:
    listed = daemon.run("alerts", "list")
    assert unseen(listed) == []
    assert unseen(daemon.run("status")) == []
    for alert in alerts:
        if alert["session_id"] in {"attribute ansi", "tool_args ansi", "event_id bidi", "tool_args lines"}:
            shown = daemon.run("alerts", "show", alert["id"])
            assert unseen(shown) == []
            assert "forged" not in [line.strip()[:12] for line in shown.splitlines()]
    assert json.loads(daemon.run("alerts", "list", "--json"))


def test_the_api_answers_with_json_that_holds_nothing_else(daemon: Daemon) -> None:
    key = {"Authorization": f"Bearer {daemon.runtime.token}"}
    reply = httpx.get(f"{daemon.runtime.console_url}/api/v1/alerts", headers=key, trust_env=False)
    assert reply.headers["content-type"] == "application/json"
    assert "injected" not in reply.json()
    assert all("injected" not in one for one in reply.json()["items"])


def test_metrics_hold_what_they_held_before(daemon: Daemon) -> None:
    text = httpx.get(f"{daemon.runtime.console_url}/metrics", trust_env=False).text
    families = {family.name for family in text_string_to_metric_families(text)}
    assert families
    assert all(name.startswith("watchkeeper_") for name in families)


class Page(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str | None] = []
        self.handlers: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "script":
            self.scripts.append(values.get("src"))
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.links += [values[name] or "" for name in ("href", "src", "hx-get") if name in values]


def test_pages_escape_everything(daemon: Daemon, alerts: list[dict[str, Any]]) -> None:
    with httpx.Client(follow_redirects=True, trust_env=False) as browser:
        assert browser.get(daemon.run("login").strip()).is_success
        base = daemon.runtime.console_url
        urls = [f"{base}/alerts", f"{base}/alerts?limit=200", f"{base}/status"]
        urls += [f"{base}/alerts/{alert['id']}" for alert in alerts]
        for url in urls:
            reply = browser.get(url)
            assert reply.is_success, url
            assert unseen(reply.text) == [], url
            assert "1337" not in re.sub(r"[0-9a-f-]{20,}", "", reply.text), "a template was evaluated"
            page = Page(reply.text)
            assert page.handlers == [], url
            assert all(source and source.startswith("/static/") for source in page.scripts), url
            assert all(link.startswith(("/", "#", "?", base)) for link in page.links), (url, page.links)


def test_slack_is_sent_text_and_never_markup(daemon: Daemon, slack: SlackApi, alerts: list[Any]) -> None:
    until(lambda: len(slack.heads) >= len(alerts) // 4, "messages in Slack", 60)

    def texts(value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            if "type" in value and isinstance(value.get("text"), str):
                yield value["type"], value["text"]
            for inner in value.values():
                yield from texts(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from texts(inner)

    for message in slack.heads:
        assert "<!channel>" not in message.text
        assert "<@U123>" not in message.text
        assert unseen(message.text) == []
        for kind, text in texts(message.blocks):
            assert unseen(text) == []
            if kind == "mrkdwn":
                assert re.fullmatch(r"<http://127\.0\.0\.1:\d+/alerts/[\w-]+\|Open in Watchkeeper>", text)


def test_history_holds_every_event(daemon: Daemon) -> None:
    until(
        lambda: daemon.client.get("/api/v1/status")["events_stored"] >= len(FIELDS) * len(NASTY), "it stored"
    )
