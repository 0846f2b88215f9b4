"""What a business role consists of.

Texts, arguments and results are templates: ``$name`` stands for a value that
``monitor.simulation.values`` draws once per session, so a value that the user named
turns up again in the calls, as it does with real agents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Grammar = Mapping[str, Mapping[str, float]]
"""From a step (``start`` or a tool) to the weights of the next ones (tools or ``end``)."""


@dataclass(frozen=True)
class Tool:
    """One tool. ``latency`` is the median in milliseconds; ``review`` the share of calls
    that wait for a human; ``refusal`` what the guardrail says when it blocks a call.
    """

    name: str
    effect: str
    args: Mapping[str, Any]
    result: Any
    target: str
    server: str | None = None
    kind: str = "function"
    classification: str = "internal"
    data: tuple[str, ...] = ()
    latency: float = 160.0
    moves_money: bool = False
    review: float = 0.0
    refusal: str = "outside the working scope of this agent"


@dataclass(frozen=True)
class Role:
    """One business role and how an agent in it behaves.

    ``outside`` is the tool whose result strangers can write (a mail, a ticket, a page).
    ``denied`` is the share of sessions in which a guardrail blocks one call. ``fast``
    marks roles with small models and short sessions, which work through long batches.
    Tokens are medians of a lognormal, ``model_latency`` a median in milliseconds.
    """

    name: str
    agent: str
    goals: tuple[str, ...]
    tools: tuple[Tool, ...]
    grammar: Grammar
    model: tuple[str, str, str]
    outside: str
    initiator: str = "user"
    input_tokens: float = 1_800.0
    output_tokens: float = 180.0
    model_latency: float = 900.0
    denied: float = 0.05
    failing: float = 0.015
    fast: bool = False
    by_name: Mapping[str, Tool] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {tool.name: tool for tool in self.tools})
