"""What the queue is asked for: the query string as conditions, and back again.

The query string is the whole state of the page, so that a link shows a colleague the same view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, and_, case, or_
from starlette.datastructures import QueryParams

from detectors.base import LEVELS
from monitor.store.state import Alert, now
from monitor.web.formats import SECOND

OPEN = ("new", "acknowledged", "in_progress")
"""Shown where no status is asked for: what still needs somebody."""

FACETS = {
    "status": Alert.status,
    "level": Alert.level,
    "agent": Alert.agent_id,
    "rule": Alert.rule_id,
    "detector": Alert.detector,
}
GROUPS = {"agent": Alert.agent_id, "session": Alert.session_id, "rule": Alert.rule_id}
"""By what the queue can be grouped."""

RANGES = {"15m": 900, "1h": 3600, "24h": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400}
"""Spans in seconds, counted back from now."""

LONGEST_VALUE = 512
MOST_VALUES = 50

SEVERITY = case({level: rank for rank, level in enumerate(LEVELS)}, value=Alert.level, else_=-1)


@dataclass(frozen=True)
class AlertFilter:
    """Conditions on alerts. ``since`` and ``until`` bound ``last_event_at``, in microseconds."""

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    session_id: str = ""
    search: str = ""
    span: str = ""
    since: int | None = None
    until: int | None = None
    sort: str = "time"
    group: str = ""
    open_id: str = ""
    tenant: str | None = None

    @classmethod
    def parse(cls, query: QueryParams, tenant: str | None = None) -> AlertFilter:
        """From a query string; what it cannot mean is left out, never guessed."""
        values = {}
        for name in FACETS:
            asked = [value[:LONGEST_VALUE] for value in query.getlist(name)[:MOST_VALUES] if value]
            if asked:
                values[name] = tuple(dict.fromkeys(asked))
        span = query.get("range", "")
        sort, group = query.get("sort", "time"), query.get("group", "")
        return cls(
            values=values,
            session_id=query.get("session", "")[:LONGEST_VALUE],
            search=query.get("q", "").strip()[:LONGEST_VALUE],
            span=span if span in RANGES else "",
            since=_moment(query.get("from")),
            until=_moment(query.get("to")),
            sort=sort if sort in ("time", "severity") else "time",
            group=group if group in GROUPS else "",
            open_id=query.get("open", "")[:LONGEST_VALUE],
            tenant=tenant,
        )

    def query(self, **changes: str) -> str:
        """The query string of this view, with some parameters set or, where empty, left out."""
        pairs = [(name, value) for name, asked in self.values.items() for value in asked]
        single = {
            "session": self.session_id,
            "q": self.search,
            "range": self.span,
            "from": "" if self.since is None else str(self.since),
            "to": "" if self.until is None else str(self.until),
            "sort": "" if self.sort == "time" else self.sort,
            "group": self.group,
            "open": self.open_id,
        } | changes
        return urlencode(pairs + [(name, value) for name, value in single.items() if value])

    def toggled(self, facet: str, value: str) -> AlertFilter:
        """The same view with one facet value added or taken away."""
        asked = self.values.get(facet, ())
        chosen = tuple(v for v in asked if v != value) if value in asked else (*asked, value)
        others = {name: kept for name, kept in self.values.items() if name != facet}
        return replace(self, values=others | ({facet: chosen} if chosen else {}), open_id="")

    def without(self, facet: str) -> AlertFilter:
        """The same view with nothing asked of one facet."""
        return replace(self, values={n: kept for n, kept in self.values.items() if n != facet}, open_id="")

    def condition(self, *, leaving_out: str = "") -> ColumnElement[bool]:
        """As SQL. ``leaving_out`` names the facet whose own choice must not narrow its counts."""
        parts: list[ColumnElement[bool]] = []
        for name, column in FACETS.items():
            if name == leaving_out:
                continue
            asked = self.values.get(name, OPEN if name == "status" else ())
            if asked and asked != ("any",):
                parts.append(column.in_(asked))
        if self.tenant is not None:
            parts.append(Alert.tenant == self.tenant)
        if self.session_id:
            parts.append(Alert.session_id == self.session_id)
        if self.search:
            searched = (Alert.title, Alert.reason, Alert.agent_id, Alert.session_id, Alert.id, Alert.rule_id)
            # SQLite's LIKE tells no capitals from small letters (ASCII), and lower() does no more
            parts.append(or_(*(column.contains(self.search, autoescape=True) for column in searched)))
        if self.span:
            parts.append(Alert.last_event_at >= now() - RANGES[self.span] * SECOND)
        if self.since is not None:
            parts.append(Alert.last_event_at >= self.since)
        if self.until is not None:
            parts.append(Alert.last_event_at < self.until)
        return and_(True, *parts)


def _moment(text: str | None) -> int | None:
    if not text or not text.isascii() or not text.isdigit() or len(text) > 16:
        return None
    return int(text)
