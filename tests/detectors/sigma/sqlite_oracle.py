"""An independent opinion: pySigma's SQLite backend, and the rules that it and we both know how to read.

It compares only ASCII letters without regard to case, so texts here are ASCII.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from sigma.backends.sqlite import sqliteBackend
from sigma.collection import SigmaCollection

TEXT = ("tool_name", "tool_args", "target", "effect")
REAL = ("input_tokens", "amount")
COLUMNS = (*TEXT, *REAL, "timestamp")

words = st.one_of(
    st.sampled_from(
        [
            "a_b", "axb", "A_B", "100%", "100x", "it's", "back\\slash", "a*b", "ab", "AB", "-", "[x]", "^a$",
            "", "two\nlines", "10.0.0.1", "10.1.2.3", "192.168.0.9", "read", "write", "null", "5",
        ]
    ),
    st.text("aAbB_%'\\*?[]^- \"\n", max_size=5),
)  # fmt: skip
numbers = st.sampled_from([0, 1, 5, 5.5, -3, 1000000])

events = st.fixed_dictionaries(
    {
        "event_id": st.just("e"),
        "event_type": st.just("tool.executed"),
        "agent_id": st.just("a"),
        "timestamp": st.sampled_from(
            ["2026-03-02T09:00:01Z", "2026-12-31T23:59:59Z", "1999-01-01T00:00:00Z"]
        ),
        "tool_name": st.one_of(st.none(), words),
        "tool_args": st.one_of(st.none(), words),
        "target": st.one_of(st.none(), words),
        "effect": st.sampled_from([None, "read", "write"]),
        "input_tokens": st.sampled_from([None, 0, 5, 1000000]),
        "amount": st.sampled_from([None, 0.0, 5.0, 5.5, -3.0]),
    }
)

_modified = st.sampled_from(
    ["", "|contains", "|startswith", "|endswith", "|cased", "|contains|cased", "|startswith|cased", "|neq"]
)
_fields = st.sampled_from(TEXT)
_entries = st.one_of(
    st.tuples(
        st.builds("{}{}".format, _fields, _modified),
        st.one_of(words, st.lists(words, min_size=1, max_size=3)),
    ),
    st.tuples(st.builds("{}|contains|all".format, _fields), st.lists(words, min_size=2, max_size=3)),
    st.tuples(
        st.builds("{}|re".format, _fields),
        st.sampled_from(["^a", "b$", "a.b", "[_%]", "\\\\", "(?i)AB", "\\d+"]),
    ),
    st.tuples(_fields, st.none()),
    st.tuples(st.builds("{}|exists".format, st.sampled_from([*TEXT, *REAL])), st.booleans()),
    st.tuples(
        st.builds("{}{}".format, st.sampled_from(REAL), st.sampled_from(["", "|lt", "|lte", "|gt", "|gte"])),
        numbers,
    ),
    st.tuples(st.just("target|cidr"), st.sampled_from(["10.0.0.0/8", "192.168.0.0/24"])),
    st.tuples(
        st.builds(
            "{}|fieldref{}".format, _fields, st.sampled_from(["", "|contains", "|startswith", "|endswith"])
        ),
        _fields,
    ),
    st.tuples(
        st.sampled_from(["timestamp|hour", "timestamp|month|gte", "timestamp|year"]),
        st.sampled_from([9, 12, 1999]),
    ),
)
_selections = st.lists(_entries, min_size=1, max_size=3).map(dict)
detections = st.builds(
    lambda a, b, condition: {"a": a, "b": b, "condition": condition},
    _selections,
    _selections,
    st.sampled_from(
        [
            "a and b",
            "a and not b",
            "not a or b",
            "not (a and b)",
            "1 of them",
            "not a and not b",
            "all of them",
        ]
    ),
)


def rule(detection: dict[str, Any]) -> str:
    """The detection as the text of a rule file."""
    return (
        "title: generated\nid: 6b1f0c52-0000-4000-8000-000000000001\nlevel: low\n"
        f"logsource: {{product: ai_agent}}\ndetection: {json.dumps(detection)}\n"
    )


def matches(text: str, events: Sequence[dict[str, Any]]) -> list[bool]:
    """Whether the rule holds at each event, as SQLite sees it."""
    database = sqlite3.connect(":memory:")
    database.create_function("REGEXP", 2, _found)
    kinds = [f"{name} {'REAL' if name in REAL else 'TEXT'}" for name in COLUMNS]
    database.execute(f"CREATE TABLE logs ({', '.join(kinds)})")
    database.executemany(
        f"INSERT INTO logs VALUES ({', '.join('?' * len(COLUMNS))})",
        [[event[name] for name in COLUMNS] for event in events],
    )
    [sql] = sqliteBackend(collate_nocase=True).convert(SigmaCollection.from_yaml(text))
    held = {row for (row,) in database.execute(sql.replace("SELECT *", "SELECT rowid", 1))}
    database.close()
    return [number in held for number in range(1, len(events) + 1)]


def _found(pattern: str, value: str | None) -> bool | None:
    return None if value is None else re.search(pattern, value) is not None
