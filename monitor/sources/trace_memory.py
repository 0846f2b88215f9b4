"""What spans say about those below them, remembered from one request to the next.

A span is sent when it ends, so the ancestor that names the agent comes after its children, often
in a later request. The memory keeps each span's place and what it says, and of each event that
still lacks something only what a revision of it must carry.

A scope is one key, live or replaying. No span of one scope is ever an ancestor in another: a
trace id is no secret, and who knows it must not thereby name the agent of somebody else's events.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from monitor.sources.context import SpanContext
from monitor.sources.revision import FIRM, Lacking, Revision

MAX_SPANS = 100_000
"""Spans, and events that lack something, remembered in all; the scope that has most gives up the
trace it used least recently.
"""

MAX_SPANS_OF_TRACE = 4_000
"""Of one trace; the oldest span is forgotten first, as ancestors come last."""

MAX_OF_TRACE = 16_000
"""Spans and waiting events of one trace together; the oldest span goes first with its events."""

MAX_REVISIONS = 1_000
"""Revisions that are handed out at once; the rest stays due."""

MAX_AGE = 900.0
"""Seconds for which a trace is remembered after its last request."""

MAX_EVENTS = 100
"""Events of one span that are remembered as lacking something."""

MAX_DEPTH = 64
MAX_KIN = 1_000
"""Spans above and below one that are looked at."""

MAX_ID = 64
"""Characters of a trace or span id; OpenTelemetry's have 32 and 16."""

Found = dict[str, tuple[int, str]]
"""Columns with the rank of their source, 0 for the best, and the value."""

NOTHING: dict[str, str] = {}
"""What most spans say; shared, and never changed."""

Scope = tuple[str, bool]
"""Id of the key, and whether it replays."""


@dataclass(slots=True)
class Node:
    """A span: its parent, what it says, and its events that lack something.

    ``parent_id`` is None until the span itself has come: a log record may come before it.
    ``below`` are the operations below it that a wrapper may hold, each with one of their spans;
    ``inner`` is the span that this one only wraps.
    """

    parent_id: str | None
    says: dict[str, str]
    events: list[Lacking] = field(default_factory=list)
    ranks: Mapping[str, int] = field(default_factory=lambda: FIRM)
    operation: str = ""
    below: dict[str, str] = field(default_factory=lambda: NOTHING)
    inner: str = ""


@dataclass(slots=True)
class Trace:
    """The spans of one trace in the order of their coming, and which stand below which.

    ``changed`` is the count of spans learned, in all, when this trace was last added to.
    """

    nodes: OrderedDict[str, Node] = field(default_factory=OrderedDict)
    below: dict[str, dict[str, None]] = field(default_factory=dict)
    touched: float = 0.0
    changed: int = 0
    events: int = 0


class TraceMemory:
    """Spans of the last requests by scope and trace. One thread; nothing here waits or writes.

    ``learned`` counts the spans that told something new, ``forgotten`` those that had to give
    way for want of room, both since the start.
    """

    def __init__(
        self,
        max_spans: int = MAX_SPANS,
        max_age: float = MAX_AGE,
        max_name_bytes: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.forgotten = 0
        self.learned = 0
        self._max_spans = max_spans
        self._max_age = max_age
        self._max_name_bytes = max_name_bytes
        self._clock = clock
        self._traces: dict[Scope, OrderedDict[str, Trace]] = {}
        self._sizes: dict[Scope, int] = {}
        self._count = 0
        self._due: dict[Scope, set[tuple[str, str]]] = {}

    def __len__(self) -> int:
        return self._count

    def metrics(self) -> dict[str, float]:
        """How much is remembered, and what had to give way."""
        return {
            "edge_trace_spans": float(self._count),
            "edge_trace_spans_forgotten_total": float(self.forgotten),
        }

    def learn(self, scope: Scope, contexts: Iterable[SpanContext], agents: Sequence[str] = ()) -> None:
        """Take in spans. ``agents`` are those that the key may speak for; empty for any."""
        self._forget_old()
        trace, trace_id = Trace(), None
        wrappers: list[tuple[Trace, SpanContext, dict[str, str]]] = []
        for one in contexts:
            if not one.span_id or max(len(one.trace_id), len(one.span_id), len(one.parent_id)) > MAX_ID:
                continue
            if one.trace_id != trace_id:
                trace, trace_id = self._trace(scope, one.trace_id), one.trace_id
            said = self._usable(one.says, agents) if one.says else NOTHING
            if one.wraps:
                wrappers.append((trace, one, said))
                said = {name: value for name, value in said.items() if name != "agent_id"}
            self._learn(scope, trace, one, said)
        for trace, one, said in wrappers:
            self._unwrap(scope, trace, one, said)
        self._make_room()

    def _unwrap(self, scope: Scope, trace: Trace, context: SpanContext, said: dict[str, str]) -> None:
        """Whether the span only wraps what came before it; else it may name an agent itself."""
        node = trace.nodes.get(context.span_id)
        if node is None:
            return  # a longer trace than can be kept
        node.inner = node.inner or next((node.below[one] for one in context.wraps if one in node.below), "")
        if not node.inner:
            self._learn(scope, trace, context, said)

    def inner(self, scope: Scope, trace_id: str, span_id: str) -> str:
        """The span which this one only wraps, and which came in an earlier request."""
        trace = self._find(scope, trace_id)
        node = trace.nodes.get(span_id) if trace else None
        return node.inner if node else ""

    def _make_room(self) -> None:
        while self._count > self._max_spans:
            self._forget(max(self._sizes, key=self._sizes.__getitem__), spent=False)

    def _usable(self, says: Mapping[str, object], agents: Sequence[str]) -> dict[str, str]:
        """What a span may say: names within the limit, and agents that the key may speak for."""
        return {
            name: value
            for name, value in says.items()
            if isinstance(value, str)
            and 0 < len(value.encode()) <= self._max_name_bytes
            and (name != "agent_id" or not agents or value in agents)
        }

    def _learn(self, scope: Scope, trace: Trace, context: SpanContext, said: dict[str, str]) -> None:
        node = trace.nodes.get(context.span_id) or self._add(scope, trace, context.span_id)
        parent_id = context.parent_id if context.parent_id.strip("0") else ""
        if node.parent_id is None or (parent_id and not node.parent_id):
            # A log record of the span, which knows no parent, may have come before it.
            node.parent_id = parent_id
            self._say(node, said, context.ranks)
            if parent_id:
                trace.below.setdefault(parent_id, {})[context.span_id] = None
            node.operation = context.operation
            self._hold(trace, context.span_id, node)
        elif said.items() <= node.says.items():
            return
        else:
            self._say(node, said, context.ranks)
        self.learned += 1
        trace.changed = self.learned
        if context.span_id in trace.below or node.events:
            self._due.setdefault(scope, set()).add((context.trace_id, context.span_id))

    def _say(self, node: Node, said: dict[str, str], ranks: Mapping[str, int]) -> None:
        if ranks:
            new = {column: rank for column, rank in ranks.items() if column not in node.says}
            node.ranks = {**node.ranks, **new}
        node.says = said | node.says if node.says else said

    def _hold(self, trace: Trace, span_id: str, node: Node) -> None:
        """Tell the spans above of the operations at and below a span that has found its place."""
        for child_id in trace.below.get(span_id, ()):
            child = trace.nodes[child_id]
            if child.below or child.operation:
                own = {child.operation: child_id} if child.operation else NOTHING
                node.below = {**node.below, **child.below, **own}
        found = {**node.below, node.operation: span_id} if node.operation else node.below
        for _ in range(MAX_DEPTH):
            above = trace.nodes.get(node.parent_id or "")
            if above is None or found.keys() <= above.below.keys():
                return
            above.below = found | above.below
            node = above

    def _add(self, scope: Scope, trace: Trace, span_id: str) -> Node:
        node = trace.nodes[span_id] = Node(None, NOTHING)
        self._grow(scope, trace, 1, 0)
        while len(trace.nodes) > MAX_SPANS_OF_TRACE:
            self._shorten(scope, trace)
        return node

    def _trace(self, scope: Scope, trace_id: str) -> Trace:
        traces = self._traces.setdefault(scope, OrderedDict())
        self._sizes.setdefault(scope, 0)
        trace = traces.get(trace_id)
        if trace is None:
            trace = traces[trace_id] = Trace()
        else:
            traces.move_to_end(trace_id)
        trace.touched = self._clock()
        return trace

    def _shorten(self, scope: Scope, trace: Trace) -> None:
        span_id, node = trace.nodes.popitem(last=False)
        if node.parent_id:
            siblings = trace.below[node.parent_id]
            del siblings[span_id]
            if not siblings:
                del trace.below[node.parent_id]
        self._grow(scope, trace, -1, -len(node.events))
        self.forgotten += 1

    def _grow(self, scope: Scope, trace: Trace, spans: int, events: int) -> None:
        trace.events += events
        self._sizes[scope] += spans + events
        self._count += spans + events

    def _forget_old(self) -> None:
        limit = self._clock() - self._max_age
        for scope in [*self._traces]:
            while scope in self._traces and next(iter(self._traces[scope].values())).touched < limit:
                self._forget(scope, spent=True)

    def _forget(self, scope: Scope, spent: bool) -> None:
        """Forget the scope's trace least recently used."""
        _, trace = self._traces[scope].popitem(last=False)
        self._sizes[scope] -= len(trace.nodes) + trace.events
        self._count -= len(trace.nodes) + trace.events
        self.forgotten += 0 if spent else len(trace.nodes)
        if not self._traces[scope]:
            del self._traces[scope], self._sizes[scope]
            self._due.pop(scope, None)

    def _find(self, scope: Scope, trace_id: str) -> Trace | None:
        traces = self._traces.get(scope)
        return traces.get(trace_id) if traces else None

    def line(self, scope: Scope, trace_id: str, span_id: str) -> Iterator[Node]:
        """The span and its ancestors, nearest first, as far as they are known."""
        trace = self._find(scope, trace_id)
        nodes = trace.nodes if trace else {}
        for _ in range(MAX_DEPTH):
            node = nodes.get(span_id)
            if node is None:
                return
            yield node
            if not node.parent_id:
                return
            span_id = node.parent_id

    def kin(self, scope: Scope, trace_id: str, span_id: str) -> set[str]:
        """The ids of the spans known to stand above and below a span, and its own."""
        found = {span_id, *(node.parent_id or "" for node in self.line(scope, trace_id, span_id))}
        trace = self._find(scope, trace_id)
        level = [span_id]
        while trace is not None and level and len(found) < MAX_KIN:
            level = [child for one in level for child in trace.below.get(one, ()) if child not in found]
            found.update(level)
        return found

    def said(
        self, scope: Scope, trace_id: str, span_id: str, lacks: Sequence[str], agent_id: str
    ) -> dict[str, str]:
        """The values of ``found``."""
        news = self.found(scope, trace_id, span_id, lacks, agent_id)
        return {column: value for column, (_, value) in news.items()}

    def found(
        self,
        scope: Scope,
        trace_id: str,
        span_id: str,
        lacks: Sequence[str],
        agent_id: str,
        ranks: Mapping[str, int] = FIRM,
    ) -> Found:
        """What the span or its ancestors say of the columns in ``lacks``, with the rank of its source.

        The better source wins, then the nearer span; a column in ``ranks`` is known already by a
        source of that rank. ``agent_id`` is the event's so far. The one that handed the task over
        is the nearest agent above that is another.
        """
        news: Found = {}
        left = set(lacks)
        limits = dict(ranks)
        for node in self.line(scope, trace_id, span_id):
            if not left:
                break
            above = node.says.get("agent_id")
            if above and "agent_id" in left:
                left.discard("agent_id")
                agent_id = above
                news["agent_id"] = 0, above
            elif above and above != agent_id and "delegated_by" in left:
                left.discard("delegated_by")
                news["delegated_by"] = 0, above
            for column in left.intersection(("session_id", "initiator_id"), node.says):
                rank = node.ranks.get(column, 0)
                if rank >= limits.get(column, rank + 1):
                    continue
                limits[column] = rank
                news[column] = rank, node.says[column]
                if column == "initiator_id":
                    news["initiator_type"] = 0, node.says.get("initiator_type", "user")
                if rank == 0:
                    left.discard(column)
        return dict(sorted(news.items()))

    def note(
        self, scope: Scope, trace_id: str, span_id: str, event: Lacking, since: int | None = None
    ) -> None:
        """Remember a stored event that lacks something; one that is known already stays as it is.

        ``since`` is ``learned`` when its ancestors were last asked: what they said while it was on
        its way to the disk is due.
        """
        if max(len(trace_id), len(span_id)) > MAX_ID:
            return
        trace = self._trace(scope, trace_id)
        node = trace.nodes.get(span_id) or self._add(scope, trace, span_id)
        if len(node.events) >= MAX_EVENTS or any(one.event_id == event.event_id for one in node.events):
            return
        node.events.append(event)
        self._grow(scope, trace, 0, 1)
        while len(trace.nodes) > 1 and len(trace.nodes) + trace.events > MAX_OF_TRACE:
            self._shorten(scope, trace)
        if since is None or trace.changed > since:
            self._due.setdefault(scope, set()).add((trace_id, span_id))
        self._make_room()

    def due(self, scope: Scope) -> list[Revision]:
        """The next ``MAX_REVISIONS`` that can be made; ``done`` or ``undo`` must follow."""
        found: list[Revision] = []
        visited: set[tuple[str, str]] = set()
        waiting = sorted(self._due.pop(scope, ()))
        for place, (trace_id, span_id) in enumerate(waiting):
            trace = self._find(scope, trace_id)
            if trace is None:
                continue
            found += islice(
                self._due_below(scope, trace_id, trace, span_id, visited), MAX_REVISIONS - len(found)
            )
            if len(found) == MAX_REVISIONS:
                self._due.setdefault(scope, set()).update(waiting[place:])
                break
        return found

    def _due_below(
        self, scope: Scope, trace_id: str, trace: Trace, span_id: str, visited: set[tuple[str, str]]
    ) -> Iterator[Revision]:
        level = [span_id]
        for _ in range(MAX_DEPTH):
            level = [one for one in level if (trace_id, one) not in visited]
            visited.update((trace_id, one) for one in level)
            for one in level:
                node = trace.nodes.get(one)
                known: dict[tuple[Any, ...], Found] = {}
                for event in node.events if node else ():
                    if event.busy or not event.lacks:
                        continue
                    asked = event.lacks, event.agent_id, *event.ranks.items()
                    if asked not in known:
                        known[asked] = self.found(
                            scope, trace_id, one, event.lacks, event.agent_id, event.ranks
                        )
                    if node and (news := known[asked]):
                        event.busy = True
                        ranks = {column: rank for column, (rank, _) in news.items() if rank}
                        values = {column: value for column, (_, value) in news.items()}
                        yield Revision(trace_id, one, node.parent_id, event, values, ranks or FIRM)
            level = [child for one in level for child in trace.below.get(one, ())]
            if not level:
                return

    def done(self, scope: Scope, revisions: Iterable[Revision]) -> None:
        """These revisions are durable."""
        for one in revisions:
            event = one.event
            event.busy = False
            event.revision += 1
            event.agent_id = one.news.get("agent_id", event.agent_id)
            event.ranks = {**event.ranks, **one.ranks} if one.ranks else event.ranks
            event.lacks = tuple(
                column for column in event.lacks if column not in one.news or column in one.ranks
            )
            self._due.setdefault(scope, set()).add((one.trace_id, one.span_id))
            if not event.lacks:
                self._drop(scope, one)

    def _drop(self, scope: Scope, one: Revision) -> None:
        """Forget an event that lacks nothing any more."""
        trace = self._find(scope, one.trace_id)
        node = trace.nodes.get(one.span_id) if trace else None
        if trace is not None and node is not None and one.event in node.events:
            node.events.remove(one.event)
            self._grow(scope, trace, 0, -1)

    def undo(self, scope: Scope, revisions: Iterable[Revision]) -> None:
        """These revisions did not become durable; they are due again."""
        for one in revisions:
            one.event.busy = False
            self._due.setdefault(scope, set()).add((one.trace_id, one.span_id))

    def revised(self, scope: Scope, record: Any) -> None:
        """A revision that was found on the disk: what it says of its event is no longer lacking."""
        trace = self._find(scope, record.correlation_id)
        node = trace.nodes.get(record.span_id) if trace else None
        event = next((one for one in node.events if one.event_id == record.event_id), None) if node else None
        if node is None or event is None:
            return
        news = {name: getattr(record, name) for name in event.lacks if getattr(record, name) is not None}
        if record.identity == "provisional":
            news.pop("agent_id", None)
        node.says = {**news, **node.says}
        self.done(scope, [Revision(record.correlation_id, record.span_id, node.parent_id, event, news)])

    def weed(self) -> None:
        """Look once through all that may be due, so that no later request has to."""
        for scope in [*self._due]:
            ready: list[Revision] = []
            while found := self.due(scope):
                ready += found
            self.undo(scope, ready)
