"""Scenarios of the OWASP Top 10 for Agentic Applications: the loader of their compact form.

An event is written as its verb, with the verb's own value, and any column by its name::

    - task: Pay the invoice of ACME          # task.created, task_goal
    - model: I will look at the invoice.     # model.invoked, model_output
    - ask: send_email                        # tool.requested, tool_name
    - run: send_email                        # tool.executed, tool_name
    - call: send_email                       # both, with one tool_call_id
    - approved: send_email                   # tool.approved, tool_name
    - policy: deny                           # policy.checked, policy_decision
    - human: approve                         # human.reviewed, review_decision
    - change: tools                          # change.declared, change_kind
    - done: success                          # task.completed, outcome

``args`` and ``result`` are ``tool_args`` and ``tool_result``; what is a mapping or a list there
becomes JSON text, as producers send it. ``after`` is seconds since the event before (3 where not
given), ``at`` seconds since the scenario began. ``repeat: {count, every}`` writes the event again
and again; ``{n}`` in its texts is then the number of the repetition. ``round: [events]`` with a
``repeat`` does the same for several that take turns, ``every`` being the pause after each round.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import yaml

HERE = Path(__file__).parent

START = datetime(2026, 3, 10, 9, 30, tzinfo=UTC)
"""A Tuesday morning, when every scenario begins."""

GAP = 3.0
"""Seconds between events where nothing is said."""

RUNTIME = 0.4
"""Seconds from the request to the execution of a ``call``."""

VERBS = {
    "task": ("task.created", "task_goal"),
    "model": ("model.invoked", "model_output"),
    "ask": ("tool.requested", "tool_name"),
    "run": ("tool.executed", "tool_name"),
    "approved": ("tool.approved", "tool_name"),
    "policy": ("policy.checked", "policy_decision"),
    "human": ("human.reviewed", "review_decision"),
    "change": ("change.declared", "change_kind"),
    "done": ("task.completed", "outcome"),
}

SHORT = {"args": "tool_args", "result": "tool_result"}

RESULTS = frozenset({"tool_result", "outcome", "output_hash", "error_type", "error_message", "latency_ms"})
"""Columns of a ``call`` that only its execution knows."""


@dataclass(frozen=True)
class Scenario:
    """One little story. ``events`` are whole wire events, as a producer would post them."""

    name: str
    asi: str
    kind: Literal["attack", "look-alike"]
    source: str
    story: str
    events: tuple[dict[str, Any], ...]


def load() -> list[Scenario]:
    """All scenarios, by file and in their order. Raises ValueError with the place of a mistake."""
    return [
        _scenario(path.stem, written)
        for path in sorted(HERE.glob("asi*.yml"))
        for written in yaml.safe_load(path.read_text("utf-8"))
    ]


def _scenario(asi: str, written: dict[str, Any]) -> Scenario:
    name = written["name"]
    strange = written.keys() - {"name", "kind", "source", "story", "defaults", "events"}
    if strange or written["kind"] not in ("attack", "look-alike"):
        raise ValueError(f"{asi}: {name}: correct the kind or the keys {sorted(strange)}")
    try:
        events = tuple(_events(f"{asi}-{name.replace(' ', '-')}", written))
    except (KeyError, TypeError, ValueError) as fault:
        raise ValueError(f"{asi}: {name}: {fault}") from fault
    return Scenario(name, asi, written["kind"], written["source"], written["story"], events)


def _events(name: str, written: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Whole events in time, with ids that tell where they come from."""
    given = {"agent_id": "assistant", "session_id": f"s-{name}", **written.get("defaults", {})}
    seconds, number = 0.0, 0
    for short in _unrolled(written["events"]):
        short = dict(short)
        seconds = short.pop("at", seconds + short.pop("after", GAP))
        for columns in _columns(short, number):
            number += 1
            whole = {
                "event_id": f"{name}-{number:03}",
                "timestamp": (START + timedelta(seconds=seconds)).isoformat(),
                **given,
                **columns,
            }
            yield {column: value for column, value in whole.items() if value is not None}
            seconds += RUNTIME if "call" in short and columns["event_type"] == "tool.requested" else 0.0


def _unrolled(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The events with every repetition written out. Raises KeyError for a round without repeat."""
    for event in events:
        if "repeat" not in event and "round" not in event:
            yield event
            continue
        once = {key: value for key, value in event.items() if key != "repeat"}
        for turn in range(1, event["repeat"]["count"] + 1):
            first, *others = _numbered(once.get("round", [once]), turn)
            yield {**first, "after": event["repeat"]["every"]} if turn > 1 else first
            yield from others


def _columns(short: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """The columns of one written event; two lots for a ``call``."""
    columns = {SHORT.get(key, key): _text(key, value) for key, value in short.items()}
    if "call" in columns:
        tool = columns.pop("call")
        whole = {"tool_name": tool, "tool_call_id": f"call_{number:03}", **columns}
        asked = {key: value for key, value in whole.items() if key not in RESULTS}
        yield {"event_type": "tool.requested", **asked}
        yield {"event_type": "tool.executed", "outcome": "success", **whole}
        return
    verbs = columns.keys() & VERBS.keys()
    if len(verbs) != 1:
        raise ValueError(f"write one verb of {sorted(VERBS)}, not {sorted(columns)}")
    event_type, column = VERBS[verbs.pop()]
    value = columns.pop(next(verb for verb in columns if VERBS.get(verb) == (event_type, column)))
    yield {"event_type": event_type, column: value, **columns}


def _text(key: str, value: Any) -> Any:
    if key in SHORT and isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value


def _numbered(value: Any, turn: int) -> Any:
    """The same with ``{n}`` filled in."""
    if isinstance(value, str):
        return value.replace("{n}", str(turn))
    if isinstance(value, dict):
        return {key: _numbered(one, turn) for key, one in value.items()}
    if isinstance(value, list):
        return [_numbered(one, turn) for one in value]
    return value
