"""The matrix of what rules cover."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from detectors.sigma.load import load_texts
from monitor.authoring.coverage import coverage
from monitor.authoring.coverage_html import coverage_html
from monitor.events import rule_fields

RULE = """
title: rule {n}
id: 9a1d3f0e-5a53-4c7e-9c41-2f6b1c1c7d1{n}
level: {level}
tags: [{tags}]
logsource: {{product: ai_agent}}
detection: {{a: {{{field}}}, condition: a}}
"""


def covered(*rules: tuple[str, str], field: str = "tool_name: pay") -> dict[str, Any]:
    texts = [RULE.format(n=n, level=level, tags=tags, field=field) for n, (level, tags) in enumerate(rules)]
    return coverage(load_texts([(str(n), text) for n, text in enumerate(texts)], rule_fields()))


def row(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["owasp_agentic"]["rows"] if one["id"] == name)


def cell(found: dict[str, Any], tactic: str, name: str) -> dict[str, Any]:
    column = next(one for one in found["atlas"]["tactics"] if one["name"] == tactic)
    return next(one for one in column["techniques"] if one["id"] == name)


def test_rules_are_counted_by_risk_and_level() -> None:
    found = covered(("high", "owasp-asi.2026.asi01"), ("low", "owasp-asi.2026.asi01, owasp-asi.2026.asi02"))
    assert row(found, "ASI01")["levels"]["high"] == 1
    assert row(found, "ASI01")["rules"] == 2
    assert row(found, "ASI02")["rules"] == 1
    assert "ASI01" not in found["owasp_agentic"]["holes"]
    assert "ASI03" in found["owasp_agentic"]["holes"]


def test_a_technique_stands_under_each_of_its_tactics_and_counts_a_rule_once() -> None:
    found = covered(("high", "atlas.aml-t0051.000, atlas.aml-t0051.001"), ("high", "atlas.aml-t0053"))
    assert cell(found, "Execution", "AML.T0051")["rules"] == 1
    assert cell(found, "Execution", "AML.T0053")["rules"] == 1
    assert cell(found, "Privilege Escalation", "AML.T0053")["rules"] == 1
    assert "AML.TA0011" in found["atlas"]["holes"]


def test_a_dormant_rule_covers_nothing_yet() -> None:
    found = covered(("high", "owasp-asi.2026.asi03"), field="'target|expand': '%hosts%'")
    assert (row(found, "ASI03")["rules"], row(found, "ASI03")["dormant"]) == (0, 1)
    assert "ASI03" in found["owasp_agentic"]["holes"]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_no_script_and_no_other_host() -> None:
    text = coverage_html(covered(("high", "owasp-asi.2026.asi01")))
    page = Page()
    page.feed(text)
    assert not page.open
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "style"} & page.attributes
    assert not re.search(r"url\(|@import", text)
    assert "prefers-color-scheme: dark" in text
    assert text.count("<tr>") == 11
