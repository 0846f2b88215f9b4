"""Events and trees for the differential test: hostile texts, absent fields, every node of the tree."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from detectors.sigma.search import PatternError, compiled
from detectors.sigma.tree import (
    And,
    Column,
    Leaf,
    Network,
    Node,
    Not,
    Null,
    Number,
    Or,
    Parts,
    Regex,
    Same,
    Text,
    Wild,
)
from monitor.events import REPEAT_OF, REPLAYED
from tests.builders import START
from tests.detectors.sigma.sigma_rules import correlation, detection

TEXTS = (
    "",
    "a",
    "A",
    "ab",
    "aB\nc",
    "it's",
    'say "x"',
    "back\\slash",
    "100%",
    "a_b",
    "axb",
    "a*b?c",
    "tab\there",
    "nul\0byte",
    "😀 ok",
    "İstanbul",
    "istanbul",
    "ıI",
    "STRASSE ẞ ß",
    "ΟΔΟΣ",
    "ΣΑΣ σας",
    "Ä",
    "ä",
    "K k",
    "ſ s",
    "\\N",
    "NULL",
    "null",
    "NaN",
    "inf",
    "-0",
    "5",
    "5.0",
    " 5",
    "1e3",
    "0x10",
    "9007199254740993",
    "{p0:String}",
    "x' OR 1=1 --",
    "\u2028line",
    "a\u00a0b",
    "٣",
    "long " * 400 + "END",
)
ADDRESSES = (
    "10.0.0.1",
    "10.0.0.256",
    "010.0.0.1",
    "10.0.0.1 ",
    "192.168.1.77",
    "::ffff:10.0.0.1",
    "::ffff:0a00:0001",
    "::10.0.0.1",
    "2001:db8::1",
    "2001:DB8:0:0:0:0:0:1",
    "2001:db8::1::2",
    "fe80::1%eth0",
    "::",
    "1:2:3:4:5:6:7::",
    "00001::",
    "1.2.3",
)
NETWORKS = ("10.0.0.0/8", "10.0.0.1/32", "0.0.0.0/0", "2001:db8::/32", "::/0", "::ffff:0:0/96", "fe80::/10")
LISTS = (
    "[]",
    "[ ]",
    '["a", "B"]',
    '["a,b", "[x]", "\\u00c4\\n"]',
    '[1.50, 2, true, null, {"b": [1, 2]}, [3, "x"]] ',
    "[draft] a",
    '["a"',
    '[" 5", 5]',
    '["10.0.0.1", "it\'s"]',
)
NUMERALS = (
    *("1.50", "1e3", "1E+400", "-0", "123456789012345678901234567890", "01", "null", "[1,  2]"),
    *('"\\ud800"', '"\\u00c4\\n"', '{"b": {"b": [1.0]}, "b": "last"}', '"{\\"a\\": 1}"', '["{", "]"]'),
)
PATTERNS = (
    "a.b",
    "(?s)a.b",
    "^a",
    "b$",
    "(?m)^c$",
    "(?i)K",
    r"\d+",
    r"\bok\b",
    r"[^\w\s]",
    r"\W",
    r"[\W\d]x?",
    r"\S\s\S",
    r"(?i)s",
    r"[]a]b",
    r"x|(?i)İ",
    r"\x{1F600}",
    r"\p{Lu}{2}",
    r"'",
    r"\\",
    r"\.",
    "",
    r"(a|b)*c",
    "aBé?|istanbulé*",
    r"ab\Q\E?",
    r"[[:upper:]]",
    "(?i)strasse",
    "\0",
    "a\\\nb|_",
)

ATOMS = (
    *("a", "b", "B", "K", "é", "ß", "σ", "Σ", "İ", "5", "_", " ", "'", "-", "]", "}", ":", "\n", "\0", "😀"),
    *(".", r"\.", r"\\", r"\n", r"\t", r"\x41", r"\x{e9}", r"\d", r"\w", r"\S", r"\W", r"\pL", r"\P{Lu}"),
    *("^", "$", r"\A", r"\z", r"\b", r"\B", "[a-c]", "[^a]", r"[\s_-]", "[]x]", "[[:alpha:]]", r"\Qa.b\E"),
    *("(?i)", "(?s)", "(?m)", "(?U)", "(?-i)", "ab", "abc", "xyé", "it's", "null"),
)
WRAPPERS = (
    *("({})", "(?:{})", "(?i:{})", "(?s-i:{})", "(?P<n>{})", "({}|)", "(?:{})*", "(?:{})+?", "(?:{}){{2}}"),
    *("(?:{}){{0,2}}", "{}?", "{}*", "{}|x", "a|{}", "^{}$", "{}.*"),
)

STRINGS = [Column(name, "string") for name in ("tool_args", "tool_name", "target", "agent_id", "session_id")]
ENUMS = [Column(name, "enum") for name in ("event_type", "effect", "policy_decision")]
ATTRIBUTES = [Column(f"attributes.{key}", "string") for key in ("k", "a.b", "it's")]
NESTED = [
    Column(f"attributes.{key}", "string") for key in ("tool_args.a", "k.a.b", "tool_name.", "k.it's\\", "k.a")
]
LISTED = [Column("data_accessed", "list"), Column("data_accessed", "list", every=True)]
EACH = [Column("attributes.k", "string", every=True)]
EVERYTHING = [Column("attributes.*", "string")]
KEYS = ("k", "a.b", "it's", "other", "k.a", "tool_args")
NUMBERS = [Column("input_tokens", "integer"), Column("amount", "float"), Column("latency_ms", "float")]
TIMES = [Column("timestamp", "timestamp"), Column("approval_expires_at", "timestamp")]

characters = st.one_of(
    st.sampled_from("aAbBcσςΣsSkKiIİıß%_\\'\"*?\n\0 5.-[]{}"),
    st.characters(codec="utf-8"),
)


@st.composite
def _plain(draw: st.DrawFn) -> str:
    # a function, so that hypothesis does not print all these texts wherever they are used
    return draw(st.one_of(st.sampled_from([*TEXTS, *ADDRESSES, *LISTS]), st.text(characters, max_size=8)))


plain = _plain()
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), plain),
    lambda items: st.one_of(
        st.lists(items, max_size=3), st.dictionaries(st.sampled_from("ab,"), items, max_size=2)
    ),
    max_leaves=4,
)
json_lists = st.builds(
    lambda items, ascii_only, indent, cut: json.dumps(items, ensure_ascii=ascii_only, indent=indent)[:cut],
    st.lists(values, max_size=3),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.sampled_from([None, None, None, -1, -2, 5]),
)
"""The text of JSON lists; a few break off."""


@st.composite
def _objects(draw: st.DrawFn) -> str:
    """The text of a JSON object as no library writes it: equal keys, odd spaces, any escape."""
    space = st.sampled_from(["", "", " ", "\n\t"])
    keys = st.sampled_from(['"a"', '"\\u0061"', '"b"', '"it\'s\\\\"', '""', '"a,"', "a"])
    told = st.one_of(values.map(json.dumps), st.sampled_from(NUMERALS), objects)
    members = draw(st.lists(st.tuples(space, keys, space, told, space), max_size=3))
    joined = ",".join(f"{a}{key}{b}:{b}{value}{c}" for a, key, b, value, c in members)
    return draw(space) + "{" + joined + draw(st.sampled_from(["}", "}", "}", "} ", ",}", "} x", ""]))


objects = st.deferred(_objects)
texts = st.one_of(plain, plain, json_lists, objects)
searchable = st.one_of(plain, st.text(characters, max_size=8), st.text("abcxyéABK5_ '\n😀", max_size=6))
integers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 5, 2**53, 2**53 + 1, -1]))
floats = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 5.0, 0.1, 1e300]))
moments = st.datetimes(datetime(1971, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC))


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


events = st.fixed_dictionaries(
    {
        "event_id": st.just("e"),
        "event_type": st.sampled_from(
            ["tool.requested", "tool.executed", "policy.checked", "telemetry.unmapped"]
        ),
        "agent_id": texts,
        "timestamp": moments,
        "tool_args": maybe(texts),
        "tool_name": maybe(texts),
        "target": maybe(texts),
        "session_id": maybe(texts),
        "effect": maybe(st.sampled_from(["read", "write"])),
        "policy_decision": maybe(st.sampled_from(["allow", "deny"])),
        "data_accessed": maybe(st.lists(texts, max_size=3)),
        "input_tokens": maybe(integers),
        "amount": maybe(floats),
        "latency_ms": maybe(floats),
        "approval_expires_at": maybe(moments),
        "attributes": maybe(st.dictionaries(st.sampled_from(KEYS), texts, max_size=3)),
    }
)

expressions = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.builds(lambda wrapper, one: wrapper.format(one), st.sampled_from(WRAPPERS), inner),
    ),
    max_leaves=8,
).filter(lambda one: _takes(one))
"""Regular expressions that RE2 takes."""


def _takes(pattern: str) -> bool:
    try:
        return compiled(pattern) is not None
    except PatternError:
        return False


parts = st.one_of(
    st.lists(st.one_of(texts, st.sampled_from(list(Wild))), max_size=4).map(tuple),
    st.tuples(st.just(Wild.MANY), texts, st.just(Wild.MANY)),
    st.tuples(texts, st.just(Wild.MANY)),
    st.tuples(st.just(Wild.MANY), texts),
)
several: st.SearchStrategy[tuple[Parts, ...]] = st.lists(parts, min_size=1, max_size=4).map(tuple)  # type: ignore[assignment]

patterns = st.one_of(st.sampled_from(PATTERNS), expressions)
searched = st.sampled_from([*STRINGS, *ENUMS, *ATTRIBUTES, *NESTED, *LISTED, *EACH, *EVERYTHING])
either = st.sampled_from([*STRINGS, *ENUMS, *ATTRIBUTES, *NESTED])
ops = st.sampled_from(["eq", "lt", "lte", "gt", "gte"])
limits = st.one_of(st.sampled_from([0, 5, 5.5, 2**53, 2**60, -1, 1e3, 0.1, float("inf")]), integers)
clock = st.one_of(st.integers(0, 60), st.integers(1970, 2200))

leaves: st.SearchStrategy[Leaf] = st.one_of(
    st.builds(Text, searched, several, st.booleans()),
    st.builds(Regex, searched, st.lists(patterns, min_size=1, max_size=3).map(tuple)),
    st.builds(Number, st.sampled_from([*NUMBERS, *ATTRIBUTES, *NESTED, *STRINGS[:2], *EACH]), ops, limits),
    st.builds(
        Number,
        st.sampled_from(TIMES),
        ops,
        clock,
        st.sampled_from(["minute", "hour", "day", "week", "month", "year"]),
    ),
    st.builds(Null, st.sampled_from([*STRINGS, *ENUMS, *ATTRIBUTES, *NESTED, *LISTED, *NUMBERS, *TIMES])),
    st.builds(Network, searched, st.sampled_from(NETWORKS)),
    st.builds(Same, either, either, st.sampled_from(["equals", "starts_with", "ends_with", "contains"])),
    st.builds(Same, st.sampled_from(NUMBERS), st.sampled_from(NUMBERS)),
    st.builds(Same, st.sampled_from(TIMES), st.sampled_from(TIMES)),
)


def _joined(items: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    some = st.lists(items, min_size=1, max_size=3).map(tuple)
    return st.one_of(st.builds(And, some), st.builds(Or, some), st.builds(Not, items))


trees: st.SearchStrategy[Node] = st.recursive(leaves, _joined, max_leaves=5)


# Correlations: three base rules that share events, and stories of few groups, late and tied times

BASES = (
    detection("{tool_name: read}", number=1, name="read", level="")
    + detection("{tool_name: [send, Wipe]}", number=2, name="send", level="")
    + detection("{tool_name|contains: w}", number=3, name="wipe", level="")
)
CONDITIONS = {
    "event_count": "condition: {gte: %d}",
    "value_count": "condition: {field: target, gte: %d}",
    "temporal_ordered": "",
}
GROUPS = ("[session_id]", "[agent_id]", "[kind]", "[input_tokens, session_id]", "[who]")
ALIASES = "aliases: {who: {read: agent_id, send: target, wipe: session_id}}"


def story(seed: int) -> tuple[str, list[dict[str, Any]]]:
    """A rule file with the three bases and one correlation over some of them, and events a few
    seconds apart: of some stories a few come late, or before their own time."""
    chance = random.Random(seed)
    kind = chance.choice(sorted(CONDITIONS))
    names = chance.sample(["read", "send", "wipe"], chance.randint(2 if kind == "temporal_ordered" else 1, 3))
    group = chance.choice(GROUPS)
    condition = CONDITIONS[kind] and CONDITIONS[kind] % chance.randint(1, 4)
    rest = "".join(f", {part}" for part in (condition, ALIASES if group == "[who]" else "") if part)
    rule = correlation(
        f"{{type: {kind}, rules: [{', '.join(names)}], group-by: {group}, "
        f"timespan: {chance.choice(['5s', '20s'])}{rest}}}"
    )
    late = chance.choice([[0], [0, 0, 0, -1, -4, -20, -600, -630, -700]])
    return BASES + rule, list(_told(chance, late))


def _told(chance: random.Random, late: list[int]) -> Iterator[dict[str, Any]]:
    seconds, gaps = 0, chance.choice([[0, 1], [0, 1, 3, 6], [0, 1, 3, 30]])
    for number in range(chance.randint(5, 100)):
        seconds += chance.choice(gaps)
        moment = START + timedelta(seconds=seconds + chance.choice(late))
        marks = {"kind": chance.choice("jk"), REPLAYED: "r", REPEAT_OF: f"e{chance.randint(0, number)}"}
        likely = {"kind": 0.7, REPLAYED: 0.05, REPEAT_OF: 0.1}
        arrived = chance.choice([None] * 8 + [0, 1, -3, -20])
        yield {
            "event_id": f"e{number}",
            "event_type": "tool.executed",
            "timestamp": moment,
            "ingested_at": None if arrived is None else moment + timedelta(seconds=arrived),
            "agent_id": chance.choice(["a1", "a2"]),
            "tool_name": chance.choice(["read", "send", "wipe", "WIPE"]),
            "session_id": chance.choice(["s1", "s1", "s1", "a1", "", "x" * 300, None]),
            "target": chance.choice(["a1", "y", "z", "it's", "", None]),
            "tenant": chance.choice(["default", "default", "", None, "acme"]),
            "input_tokens": chance.choice([1, 1, 2, None]),
            "attributes": {key: value for key, value in marks.items() if chance.random() < likely[key]},
        }
