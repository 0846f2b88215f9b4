"""What an agent did in the hour before an alert: events a minute by type, and a rule at its moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectors.wording import plain
from monitor.dashboards.chart import SCHEMA, picture
from monitor.dashboards.themes import PALETTES
from monitor.moments import rfc3339
from monitor.store.state import Alert

MINUTE = 60_000_000
BEFORE = 60
AFTER = 5
"""Minutes that are shown before and after the alert's last event."""

MOST_SECONDS = 5

QUERY = """
SELECT intDiv(toUnixTimestamp64Micro(timestamp), 60000000) * 60000 AS at, event_type, count() AS events
FROM events
WHERE tenant = {tenant:String} AND agent_id = {agent:String} AND ifNull(revision, 0) = 0
  AND timestamp >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')
  AND timestamp < fromUnixTimestamp64Micro({until:Int64}, 'UTC')
GROUP BY at, event_type
ORDER BY at, event_type
"""


def activity_query(alert: Alert) -> tuple[str, dict[str, Any]]:
    """SQL and its parameters: rows of minute (milliseconds), event type and count."""
    since, until = _span(alert)
    return QUERY, {"tenant": alert.tenant, "agent": alert.agent_id, "since": since, "until": until}


def activity_chart(alert: Alert, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The picture as Vega-Lite. What agents name is cut, on one line and never interpreted."""
    since, until = _span(alert)
    palette = PALETTES["event-type"]
    there = [name for name in palette if any(row[1] == name for row in rows)]
    values = [{"at": int(row[0]), "type": plain(str(row[1]), 40), "events": int(row[2])} for row in rows]
    time = {"type": "utc", "domainMin": since // 1000, "domainMax": until // 1000}
    x = {"type": "temporal", "scale": time, "axis": {"title": None, "format": "%H:%M", "tickCount": 8}}
    colour = {"domain": there, "range": [palette[name][0] for name in there]}
    bars = {
        "mark": "bar",
        "encoding": {
            "x": {**x, "field": "at", "timeUnit": "utcyearmonthdatehoursminutes"},
            "y": {
                "field": "events",
                "type": "quantitative",
                "title": "Events a minute",
                "axis": {"tickMinStep": 1},
            },
            "color": {"field": "type", "type": "nominal", "scale": colour},
        },
    }
    moment = [{"at": alert.last_event_at // 1000, "what": f"alert: {alert.level}"}]
    here = {"x": {**x, "field": "at"}}
    line = {"mark": {"type": "rule", "color": PALETTES["severity"]["critical"][0], "strokeWidth": 1.5}}
    word = {"mark": {"type": "text", "align": "center", "y": -8, "fontWeight": 600}}
    layers = [
        bars,
        {"data": {"values": moment}, **line, "encoding": here},
        {"data": {"values": moment}, **word, "encoding": {**here, "text": {"field": "what"}}},
    ]
    told = f"{plain(alert.title, 90)}, {rfc3339(alert.last_event_at)[:16].replace('T', ' ')} UTC"
    spec = {"$schema": SCHEMA, "data": {"values": values}, "layer": layers, "height": 200}
    return picture(spec, plain(alert.agent_id, 80), told)


def _span(alert: Alert) -> tuple[int, int]:
    minute = alert.last_event_at // MINUTE
    return (minute - BEFORE) * MINUTE, (minute + AFTER) * MINUTE
