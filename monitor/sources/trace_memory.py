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
from typing import Any

from monitor.sources.context import SpanContext
from monitor.sources.revision import Lacking, Revision

MAX_SPANS = 100_000
"""Spans remembered in all; the scope that has most gives up the trace it used least recently."""

MAX_SPANS_OF_TRACE = 4_000
"""Of one trace; the oldest span is forgotten first, as ancestors come last."""

MAX_AGE = 900.0
"""Seconds for which a trace is remembered after its last request."""

MAX_EVENTS = 100
"""Events of one span that are remembered as lacking something."""

MAX_DEPTH = 64
MAX_KIN = 1_000
"""Spans above and below one that are looked at."""

MAX_ID = 64
"""Characters of a trace or span id; OpenTelemetry's have 32 and 16."""

NOTHING: dict[str, str] = {}
"""What most spans say; shared, and never changed."""

Scope = tuple[str, bool]
"""Id of the key, and whether it replays."""


@dataclass(slots=True)
class Node:
    """A span: its parent, what it says, and its events that lack something.

    ``parent_id`` is None until the span itself has come: a log record may come before it.
    """

    parent_id: str | None
    says: dict[str, str]
    events: list[Lacking] = field(default_factory=list)


@dataclass(slots=True)
class Trace:
    """The spans of one trace in the order of their coming, and which stand below which.

    ``changed`` is the count of spans learned, in all, when this trace was last added to.
    """

    nodes: OrderedDict[str, Node] = field(default_factory=OrderedDict)
    below: dict[str, dict[str, None]] = field(default_factory=dict)
    touched: float = 0.0
    changed: int = 0


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
        for one in contexts:
            if not one.span_id or max(len(one.trace_id), len(one.span_id), len(one.parent_id)) > MAX_ID:
                continue
            if one.trace_id != trace_id:
                trace, trace_id = self._trace(scope, one.trace_id), one.trace_id
            self._learn(scope, trace, one, self._usable(one.says, agents) if one.says else NOTHING)
        self._make_room()

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
            node.says = said | node.says if node.says else said
            if parent_id:
                trace.below.setdefault(parent_id, {})[context.span_id] = None
        elif said.items() <= node.says.items():
            return
        else:
            node.says = said | node.says
        self.learned += 1
        trace.changed = self.learned
        if context.span_id in trace.below or node.events:
            self._due.setdefault(scope, set()).add((context.trace_id, context.span_id))

    def _add(self, scope: Scope, trace: Trace, span_id: str) -> Node:
        node = trace.nodes[span_id] = Node(None, NOTHING)
        self._sizes[scope] += 1
        self._count += 1
        if len(trace.nodes) > MAX_SPANS_OF_TRACE:
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
        self._sizes[scope] -= 1
        self._count -= 1
        self.forgotten += 1

    def _forget_old(self) -> None:
        limit = self._clock() - self._max_age
        for scope in [*self._traces]:
            while scope in self._traces and next(iter(self._traces[scope].values())).touched < limit:
                self._forget(scope, spent=True)

    def _forget(self, scope: Scope, spent: bool) -> None:
        """Forget the scope's trace least recently used."""
        _, trace = self._traces[scope].popitem(last=False)
        self._sizes[scope] -= len(trace.nodes)
        self._count -= len(trace.nodes)
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
        """What the span or its ancestors say of the columns in ``lacks``, nearest first.

        ``agent_id`` is the event's so far. The one that handed the task over is the nearest agent
        above that is another.
        """
        news: dict[str, str] = {}
        left = set(lacks)
        for node in self.line(scope, trace_id, span_id):
            if not left:
                break
            above = node.says.get("agent_id")
            if above and "agent_id" in left:
                left.discard("agent_id")
                news["agent_id"] = agent_id = above
            elif above and above != agent_id and "delegated_by" in left:
                left.discard("delegated_by")
                news["delegated_by"] = above
            for column in left.intersection(("session_id", "initiator_id"), node.says):
                left.discard(column)
                news[column] = node.says[column]
                if column == "initiator_id":
                    news["initiator_type"] = node.says.get("initiator_type", "user")
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
        if since is None or trace.changed > since:
            self._due.setdefault(scope, set()).add((trace_id, span_id))
        self._make_room()

    def due(self, scope: Scope) -> list[Revision]:
        """The revisions that can be made now; ``done`` or ``undo`` must follow."""
        found: list[Revision] = []
        visited: set[tuple[str, str]] = set()
        for trace_id, span_id in sorted(self._due.pop(scope, ())):
            trace = self._find(scope, trace_id)
            if trace is not None:
                found += self._due_below(scope, trace_id, trace, span_id, visited)
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
                for event in node.events if node else ():
                    news = {} if event.busy else self.said(scope, trace_id, one, event.lacks, event.agent_id)
                    if node and news:
                        event.busy = True
                        yield Revision(trace_id, one, node.parent_id, event, news)
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
            event.lacks = tuple(column for column in event.lacks if column not in one.news)
            self._due.setdefault(scope, set()).add((one.trace_id, one.span_id))

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
            self.undo(scope, self.due(scope))
