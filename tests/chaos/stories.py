"""What the load is made of: sessions of calm agents, and of some that must be stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any

Step = dict[str, Any]

TOOLS = ("search_inbox", "read_invoice", "lookup_vendor", "draft_reply", "book_entry")


def calm(rng: Random) -> Iterator[Step]:
    """What most sessions do all day."""
    yield {"event_type": "task.created", "task_goal": "Check an invoice and book it."}
    for number in range(rng.randint(2, 6)):
        tool = {"tool_name": rng.choice(TOOLS), "tool_call_id": f"c{number}"}
        yield {"event_type": "model.invoked", "model_id": "m-1", "input_tokens": 900, "output_tokens": 80}
        yield {"event_type": "tool.requested", "effect": "read", **tool}
        yield {"event_type": "tool.executed", "effect": "read", "outcome": "success", **tool}
    yield {"event_type": "task.completed", "outcome": "success"}


def pushing(rng: Random) -> Iterator[Step]:
    """A session that keeps running into a policy: to be stopped as a session."""
    for number in range(rng.randint(6, 14)):
        yield {
            "event_type": "policy.checked",
            "policy_decision": "deny",
            "policy_id": "dlp-7",
            "outcome": "blocked",
            "tool_call_id": f"c{number}",
        }


def leaking(rng: Random) -> Iterator[Step]:
    """An agent that reads a secret and then reaches for the way out: to be stopped as an agent."""
    yield {"event_type": "tool.executed", "tool_name": "vault_read", "outcome": "success"}
    for _ in range(rng.randint(0, 3)):
        yield {"event_type": "model.invoked", "model_id": "m-1"}
    yield {"event_type": "tool.requested", "tool_name": "http_post", "effect": "external"}


def defying(rng: Random) -> Iterator[Step]:
    """A call that is refused and runs all the same: to be stopped as an agent."""
    call = {"tool_name": "delete_customer", "tool_call_id": "c1"}
    yield {"event_type": "policy.checked", "policy_decision": "deny", **call}
    for _ in range(rng.randint(0, 3)):
        yield {"event_type": "model.invoked", "model_id": "m-1"}
    yield {"event_type": "tool.executed", "outcome": "success", **call}


HOSTILE: tuple[Callable[[Random], Iterator[Step]], ...] = (pushing, leaking, defying)


def session(sender: str, number: int, rng: Random) -> Iterator[bytes]:
    """One session as events on the wire. Every hostile one has an agent of its own, with one order due."""
    hostile = rng.random() < 0.12
    story = rng.choice(HOSTILE) if hostile else calm
    name = f"{sender}-{number}"
    agent = f"{story.__name__}-{name}" if hostile else f"calm-{rng.randrange(8)}"
    for index, step in enumerate(story(rng)):
        moment = datetime.now(UTC).isoformat()
        yield json.dumps(
            {
                "event_id": f"{name}-{index}",
                "agent_id": agent,
                "session_id": name,
                "environment": "production",
                "timestamp": moment,
                **step,
            }
        ).encode()


def batches(sender: str, rng: Random, going_on: Callable[[], bool]) -> Iterator[list[bytes]]:
    """Requests of some events each, of several sessions at once, those of a session in order.

    Ends when ``going_on`` says no and every session that was begun has ended.
    """
    open_sessions: list[Iterator[bytes]] = []
    begun = 0
    while True:
        while len(open_sessions) < 6 and going_on():
            open_sessions.append(session(sender, begun, rng))
            begun += 1
        if not open_sessions:
            return
        lines: list[bytes] = []
        for each in rng.sample(open_sessions, len(open_sessions)):
            for _ in range(rng.randint(1, 5)):
                if (line := next(each, None)) is None:
                    open_sessions.remove(each)
                    break
                lines.append(line)
        if lines:
            yield lines
