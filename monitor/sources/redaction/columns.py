"""Which columns a policy may name, and which of them it means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from monitor.events import COLUMNS, Kind
from monitor.settings import RedactionSettings
from monitor.sources.redaction.kinds import KINDS

ATTRIBUTES = "attributes"

TEXTS = tuple(
    c.name for c in COLUMNS if c.kind in (Kind.STRING, Kind.LABEL, Kind.LIST) and c.name != "tenant"
)
"""Columns that a sender can put text into. The tenant is the key's."""

NAMES = frozenset(
    {"event_id", "agent_id", "delegated_by", "agent_instance_id", "source", "session_id", "task_id"}
    | {"correlation_id", "span_id", "parent_span_id", "tool_call_id", "approval_id"}
)
"""Redacted only where a policy names them, and never masked: many things would become one."""


def covers(patterns: Sequence[str], column: str) -> bool:
    """Whether a policy with these patterns means the column, ``attributes.NAME`` for an attribute."""
    if column in NAMES:
        return column in patterns
    if ATTRIBUTES in patterns and column.startswith(ATTRIBUTES + "."):
        return True
    return any(fnmatchcase(column, pattern) for pattern in patterns)


def fault(pattern: str, mode: str) -> tuple[str, frozenset[str]] | None:
    """What is wrong with a column's name or pattern in a policy, and the names that could be meant."""
    known = frozenset({*TEXTS, ATTRIBUTES})
    if pattern in NAMES and mode == "mask":
        return f"{pattern} would be the same for all; use mode = 'fingerprint'", frozenset()
    if pattern in known or pattern.startswith(ATTRIBUTES + "."):
        return None
    if any(char in pattern for char in "*?["):
        fits = any(fnmatchcase(name, pattern) for name in (*TEXTS, ATTRIBUTES + ".x"))
        return None if fits else (f"no column of text fits {pattern!r}", frozenset())
    if any(column.name == pattern for column in COLUMNS):
        return f"{pattern} holds no text that a sender chooses", frozenset()
    return f"unknown column {pattern!r}", known


def told(settings: RedactionSettings) -> Iterator[str]:
    """Each policy in words, in the order in which they are asked."""
    for policy in settings.policies:
        wanted = set(policy.detectors)
        names = [kind.name for kind in KINDS if kind.name in wanted or kind.group in wanted]
        names += [name for name in settings.patterns if name in wanted]
        whose = {"sources": policy.sources, "agents": policy.agents, "dialects": policy.dialects}
        only = [f"{what} {', '.join(patterns)}" for what, patterns in whose.items() if patterns != ["*"]]
        where = f"in {', '.join(policy.columns)}" + (f" of {' and '.join(only)}" if only else "")
        yield f"{policy.mode} {', '.join(names)} {where}"
