"""The event schema, defined once.

From ``COLUMNS`` come the Arrow schema of the spool, the polars frame, the ClickHouse
table, the check of incoming JSON, the field names of rules and docs/events.md.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import msgspec
import pyarrow as pa

from detectors.base import Fields

EVENT_TYPES = {
    "task.created": "a task or session step begins; carries goal and initiator",
    "policy.checked": "a policy engine or guardrail decided",
    "model.invoked": "one model call, with provenance and usage",
    "tool.requested": "the agent asked for a tool call",
    "tool.approved": "the call was allowed, by policy or by a human",
    "tool.executed": "the call ran, with result and outcome",
    "human.reviewed": "a human approved, rejected or changed something",
    "task.completed": "the task ended, with its outcome",
    "change.declared": "model, prompt, tools, policy or permissions were changed on purpose",
    "telemetry.unmapped": "a record that no map recognised, kept whole in `attributes`",
}

RESERVED = "watchkeeper."
"""Attributes with this prefix are Watchkeeper's own marks; a producer cannot set them."""

REPLAYED = RESERVED + "replay"
"""Marks an event that came from `watchkeeper replay`: nothing it causes pages or stops anybody."""

REPEAT_OF = RESERVED + "repeat_of"
"""Marks a further report of a tool call; holds the id of the event that reported it first."""

INHERITED = RESERVED + "inherited"
"""Marks an event that was completed from other spans; names the columns."""


class Kind(enum.Enum):
    """What a column holds: its Arrow type, its ClickHouse type and its Python type."""

    STRING = ("string", pa.string(), "Nullable(String)", str)
    LABEL = ("string", pa.string(), "LowCardinality(Nullable(String))", str)
    ENUM = ("enum", pa.string(), "LowCardinality(Nullable(String))", str)
    INTEGER = ("integer", pa.int64(), "Nullable(Int64)", int)
    FLOAT = ("float", pa.float64(), "Nullable(Float64)", float)
    TIMESTAMP = ("timestamp", pa.timestamp("us", "UTC"), "Nullable(DateTime64(6, 'UTC'))", datetime)
    LIST = ("list", pa.list_(pa.string()), "Array(String)", list[str])
    MAP = ("map", pa.map_(pa.string(), pa.string()), "Map(String, String)", dict[str, str])

    def __init__(self, label: str, arrow: pa.DataType, clickhouse: str, python: Any) -> None:
        self.label = label
        self.arrow = arrow
        self.clickhouse = clickhouse
        self.python = python


@dataclass(frozen=True)
class Column:
    """One column. ``otel`` names the OpenTelemetry attributes that carry it, best first."""

    name: str
    kind: Kind
    meaning: str
    otel: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    required: bool = False

    @property
    def clickhouse(self) -> str:
        """The column's ClickHouse type; a required column is not nullable."""
        declared = self.kind.clickhouse
        return declared.replace("Nullable(", "", 1).replace(")", "", 1) if self.required else declared


S, L, E, N, F, T = Kind.STRING, Kind.LABEL, Kind.ENUM, Kind.INTEGER, Kind.FLOAT, Kind.TIMESTAMP

COLUMNS: tuple[Column, ...] = (
    Column("event_id", S, "producer's id, UUIDv7 advised; the deduplication key", required=True),
    Column(
        "event_type",
        E,
        "what happened; see the event types",
        ("gen_ai.operation.name",),
        tuple(EVENT_TYPES),
        required=True,
    ),
    Column("timestamp", T, "event time, UTC, microseconds", required=True),
    Column("ingested_at", T, "when Watchkeeper received it; set by the daemon"),
    Column("tenant", L, "customer or business unit; `default` where none is given", ("tenant.id",)),
    Column("environment", L, "`production`, `staging`, `development`", ("deployment.environment.name",)),
    Column(
        "agent_id",
        L,
        "stable identity: service name and agent name, never a per-run id",
        ("gen_ai.agent.name", "service.name"),
        required=True,
    ),
    Column(
        "identity",
        E,
        "bound: the key is tied to this agent; declared: the sender says so; provisional: not known yet",
        values=("bound", "declared", "provisional"),
    ),
    Column("delegated_by", L, "the agent that handed the task over"),
    Column(
        "agent_instance_id", S, "the per-process or per-run id", ("gen_ai.agent.id", "service.instance.id")
    ),
    Column("agent_version", L, "the agent's version", ("gen_ai.agent.version", "service.version")),
    Column("business_role", L, "procurement, support and so on"),
    Column("session_id", S, "conversation or run", ("session.id", "gen_ai.conversation.id")),
    Column("task_id", S, "the task within the session"),
    Column("correlation_id", S, "joins one workflow across systems; the trace id"),
    Column(
        "revision",
        N,
        "0 or absent as first judged; later context (a parent span's agent or session) is a record of its "
        "own with a higher one, which only the daemon writes",
    ),
    Column("span_id", S, "the span this event came from"),
    Column("parent_span_id", S, "that span's parent"),
    Column("initiator_id", S, "who started it", ("user.id", "enduser.id")),
    Column("initiator_type", E, "what kind of party started it", values=("user", "agent", "system")),
    Column("source_ip", L, "address of the caller", ("client.address",)),
    Column("task_goal", S, "the goal, or the user's instruction"),
    Column("model_provider", L, "provider of the model", ("gen_ai.provider.name", "gen_ai.system")),
    Column("model_id", L, "identifier of the model", ("gen_ai.request.model", "gen_ai.response.model")),
    Column("model_version", L, "version or hash of the model"),
    Column("prompt_template_version", L, "version of the prompt template"),
    Column("prompt_hash", L, "hash of the prompt"),
    Column("retrieval_config", L, "configuration of retrieval"),
    Column("tool_registry_version", L, "version of the tool registry"),
    Column("policy_version", L, "version of the policy in force"),
    Column("model_input", S, "messages as JSON text, often absent", ("gen_ai.input.messages",)),
    Column("model_output", S, "messages as JSON text, often absent", ("gen_ai.output.messages",)),
    Column("model_settings", S, "temperature, safety filters and the like, as JSON text"),
    Column("output_hash", S, "hash of what the model or tool returned"),
    Column("input_tokens", N, "tokens in", ("gen_ai.usage.input_tokens",)),
    Column("output_tokens", N, "tokens out", ("gen_ai.usage.output_tokens",)),
    Column("cost_usd", F, "cost in US dollars"),
    Column("latency_ms", F, "duration in milliseconds"),
    Column("confidence", F, "0 to 1"),
    Column("tool_name", L, "the tool", ("gen_ai.tool.name",)),
    Column("tool_call_id", S, "id of the call", ("gen_ai.tool.call.id",)),
    Column("tool_kind", L, "function, extension, datastore", ("gen_ai.tool.type",)),
    Column("tool_server", L, "the MCP server that carries the tool"),
    Column("tool_description", S, "the description the model saw", ("gen_ai.tool.description",)),
    Column("tool_args", S, "arguments, as JSON text or plain text", ("gen_ai.tool.call.arguments",)),
    Column("tool_result", S, "result, as JSON text or plain text", ("gen_ai.tool.call.result",)),
    Column(
        "target",
        S,
        "what the call reaches: host, recipient, account, path",
        ("server.address", "url.full"),
    ),
    Column("effect", E, "what the call does", values=("read", "write", "external", "irreversible")),
    Column(
        "data_classification",
        E,
        "most sensitive data touched",
        values=("public", "internal", "confidential", "restricted"),
    ),
    Column("data_accessed", Kind.LIST, "tables, files, records"),
    Column("policy_id", L, "the policy that decided", ("gen_ai.guardrail.id",)),
    Column(
        "policy_decision",
        E,
        "what it decided",
        ("gen_ai.guardrail.decision",),
        ("allow", "deny", "escalate", "redirect"),
    ),
    Column("policy_reason", S, "why", ("gen_ai.guardrail.reason",)),
    Column("risk_tier", E, "risk of the action", values=("low", "medium", "high")),
    Column("decision_source", L, "config, hook, user, policy engine"),
    Column("reviewer_id", S, "the human who reviewed"),
    Column("review_decision", E, "what the human decided", values=("approve", "reject", "modify")),
    Column("approval_id", S, "ties a review to the calls it covers"),
    Column("approval_expires_at", T, "until when the approval holds, UTC"),
    Column("amount", F, "money moved, in the currency of `attributes.currency`"),
    Column(
        "change_kind",
        E,
        "what was changed, for `change.declared`",
        values=("model", "prompt", "tools", "policy", "permission"),
    ),
    Column("change_ref", S, "the release or ticket of the change"),
    Column(
        "outcome",
        E,
        "how it ended",
        values=("success", "failure", "blocked", "redirected", "timeout", "cancelled"),
    ),
    Column("error_type", L, "class of the error", ("error.type",)),
    Column("error_message", S, "the error's message"),
    Column("source", L, "which dialect or producer it came from, with version"),
    Column("attributes", Kind.MAP, "everything else; nothing a producer sent is dropped without a mark"),
)

DERIVED = {"agent_tool": ("agent_id", "tool_name")}
"""Fields of rules that are no columns: a name, and the columns joined by ``/``."""

BY_NAME = {column.name: column for column in COLUMNS}

ARROW_SCHEMA = pa.schema([pa.field(c.name, c.kind.arrow, nullable=not c.required) for c in COLUMNS])


def rule_fields() -> Fields:
    """The schema as rules see it: columns with kinds, and the OpenTelemetry aliases."""
    aliases: dict[str, tuple[str, ...]] = {}
    for column in COLUMNS:
        for attribute in column.otel:
            aliases[attribute] = (*aliases.get(attribute, ()), column.name)
    return Fields({c.name: c.kind.label for c in COLUMNS}, aliases, DERIVED)


def _annotation(column: Column) -> Any:
    from typing import Literal

    base = Literal[column.values] if column.values else column.kind.python
    if column.kind is T:
        base = datetime
    return base if column.required and column.name != "event_id" else base | None


def _record_fields() -> Iterable[tuple[Any, ...]]:
    for column in COLUMNS:
        required = column.required and column.name != "event_id"
        annotation = _annotation(column)
        yield (column.name, annotation) if required else (column.name, annotation, None)


Record: Any = msgspec.defstruct("Record", list(_record_fields()), kw_only=True, gc=False)
"""One checked event: every column an attribute, None where absent. ``event_id`` may be
absent on the wire; the gate then derives it."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def arrow_batch(records: Sequence[Any]) -> pa.RecordBatch:
    """Checked records as one Arrow batch of ``ARROW_SCHEMA``, a row each, in order."""
    if not records:
        return pa.RecordBatch.from_pylist([], schema=ARROW_SCHEMA)
    by_column = zip(*map(msgspec.structs.astuple, records), strict=True)
    arrays = [_array(column.kind, values) for column, values in zip(COLUMNS, by_column, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=ARROW_SCHEMA)


def _array(kind: Kind, values: Sequence[Any]) -> pa.Array:
    if kind is Kind.MAP:
        keys = pa.array([key for value in values if value for key in value], pa.string())
        items = pa.array([item for value in values if value for item in value.values()], pa.string())
        return pa.MapArray.from_arrays(_offsets(values), keys, items)
    if kind is Kind.LIST:
        items = pa.array([item for value in values if value for item in value], pa.string())
        return pa.ListArray.from_arrays(_offsets(values), items)
    # Most columns of most batches are empty: counting is far cheaper than converting.
    if values.count(None) == len(values):
        return pa.nulls(len(values), kind.arrow)
    if kind is Kind.TIMESTAMP:
        # A difference converts in C; a datetime asks its tzinfo, in Python, value by value.
        since = [None if value is None else value - _EPOCH for value in values]
        return pa.array(since, type=pa.duration("us")).view(pa.int64()).view(kind.arrow)
    return pa.array(values, type=kind.arrow)


def _offsets(values: Sequence[Any]) -> pa.Array:
    return pa.array([0, *accumulate(len(value) if value else 0 for value in values)], pa.int32())
