"""Filter documents: conditions that a site joins to rules without touching them."""

from __future__ import annotations

import pytest

from tests.builders import event
from tests.detectors.sigma.sigma_rules import ID, correlation, detection, faults, found, rules

SHELL = detection("{tool_name: shell}", name="shell")
MAIL = detection("{tool_name: mail}", number=2, name="mail")
EVENTS = [
    event("tool.executed", at, tool_name=tool, agent_id=agent)
    for at, tool, agent in (
        (0, "shell", "robot"),
        (1, "shell", "clerk"),
        (2, "mail", "robot"),
        (3, "mail", "clerk"),
    )
]


def only(
    targets: str,
    body: str = "{agent_id: robot}",
    condition: str = "not s",
    logsource: str = "{product: ai_agent}",
) -> str:
    """A filter document."""
    return (
        f"title: the robot\nlogsource: {logsource}\n"
        f"filter:\n  rules: {targets}\n  s: {body}\n  condition: {condition}\n---\n"
    )


def titles(text: str) -> list[tuple[str, str]]:
    return [(one.title, one.agent_id) for one in found(rules(text), *EVENTS)]


ALL = [("rule 1", "robot"), ("rule 1", "clerk"), ("rule 2", "robot"), ("rule 2", "clerk")]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("[shell]", ALL[1:]),
        (f"[{ID.format(1)}]", ALL[1:]),
        ("[shell, mail]", [ALL[1], ALL[3]]),
        ("any", [ALL[1], ALL[3]]),
    ],
)
def test_a_filter_narrows_the_rules_that_it_names(targets: str, expected: list[tuple[str, str]]) -> None:
    assert titles(SHELL + MAIL) == ALL
    assert titles(only(targets) + SHELL + MAIL) == expected


def test_a_filter_may_hold_any_condition() -> None:
    body = "{agent_id|re: '^ro', tool_name|contains: [hel, xyz]}"
    assert titles(only("any", body) + SHELL + MAIL) == ALL[1:]
    assert titles(only("any", "{agent_id: robot}", "s") + SHELL + MAIL) == [ALL[0], ALL[2]]


def test_a_correlation_counts_what_its_filtered_rule_leaves() -> None:
    count = correlation(
        "{type: event_count, rules: [shell], group-by: [tool_name], timespan: 1m, condition: {gte: 2}}"
    )
    assert [title for title, _ in titles(SHELL + count)] == ["correlation 100"]
    assert titles(only("[shell]") + SHELL + count) == []


def test_a_filter_changes_the_version_of_its_rules_only() -> None:
    plain, narrowed = rules(SHELL + MAIL), rules(only("[shell]") + SHELL + MAIL)
    changed = [
        one.key
        for one, other in zip(plain.rules, narrowed.rules, strict=True)
        if one.version != other.version
    ]
    assert changed == ["shell"]
    assert [one.filters for one in narrowed.rules if one.key == "shell"] == [("the robot",)]


def test_a_filter_without_its_list_changes_nothing() -> None:
    assert titles(only("any", "{agent_id|expand: '%robots%'}") + SHELL + MAIL) == ALL
    assert titles(
        "lists: {robots: [robot]}\n---\n" + only("any", "{agent_id|expand: '%robots%'}") + SHELL + MAIL
    ) == [ALL[1], ALL[3]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (only("[nosuch]"), "'nosuch'"),
        (only("[shell]", logsource="{product: windows}"), "logsource"),
        (only("[shell]", condition="not nosuch"), "nosuch"),
        (only("[shell]", body="{tool_args|sounds_like: x}"), "sounds_like"),
        ("title: x\nlogsource: {product: ai_agent}\nfilter: []\n---\n", "filter"),
    ],
)
def test_a_filter_that_would_not_do_what_it_says_is_refused(text: str, reason: str) -> None:
    told = faults(text + SHELL)
    assert told
    assert reason in " ".join(told)
