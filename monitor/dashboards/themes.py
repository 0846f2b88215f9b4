"""The console's colours and type as Vega configurations, light and dark: those of console.css."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

FONT = 'Inter, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif'

PALETTES: dict[str, dict[str, tuple[str, str]]] = {
    "severity": {
        "critical": ("#c9184a", "#ff5d7d"),
        "high": ("#e8702e", "#f0813c"),
        "medium": ("#e2b441", "#c9a13a"),
        "low": ("#76a9e6", "#4f88cc"),
        "informational": ("#aeb7c0", "#5a6570"),
    },
    "outcome": {
        "success": ("#2f9e78", "#3fae86"),
        "failure": ("#d9642b", "#f0813c"),
        "timeout": ("#e2b441", "#d6b04a"),
        "blocked": ("#b5123e", "#ff5d7d"),
        "redirected": ("#7a68c4", "#a396ee"),
        "cancelled": ("#8a949e", "#7f8b97"),
        "not told": ("#ccd3da", "#3d4854"),
    },
    "decision": {
        "allow": ("#2f9e78", "#3fae86"),
        "deny": ("#b5123e", "#ff5d7d"),
        "escalate": ("#e2a32b", "#e5bd4a"),
        "redirect": ("#7a68c4", "#a396ee"),
    },
    "verdict": {
        "true positive": ("#b5123e", "#ff5d7d"),
        "benign positive": ("#e2a32b", "#e5bd4a"),
        "false positive": ("#3c7bc4", "#77b1f5"),
        "duplicate": ("#8a949e", "#7f8b97"),
        "test": ("#b9c1c9", "#56616d"),
        "open": ("#d9dee3", "#333d48"),
    },
    "standing": {
        "latest": ("#2f6bb0", "#5f9fe8"),
        "earlier": ("#b9c1c9", "#56616d"),
    },
    "event-type": {
        "task.created": ("#8a949e", "#8d98a4"),
        "model.invoked": ("#2f6bb0", "#5f9fe8"),
        "tool.requested": ("#8cc0e8", "#a9d3f7"),
        "tool.approved": ("#5b4fa8", "#9d90ee"),
        "tool.executed": ("#1f8a70", "#3fae86"),
        "policy.checked": ("#e2a32b", "#e5bd4a"),
        "human.reviewed": ("#b0558f", "#e08cc0"),
        "task.completed": ("#b9c1c9", "#56616d"),
        "change.declared": ("#8c5a1f", "#c99a5b"),
        "telemetry.unmapped": ("#b5123e", "#ff5d7d"),
    },
}
"""Scales that an encoding names as ``range``: each value's colour, light and dark, in legend order."""

CATEGORIES = (
    *(("#2f6bb0", "#5f9fe8"), ("#e08a2e", "#f0a45d"), ("#1f8a70", "#3fae86"), ("#b0558f", "#e08cc0")),
    *(("#8cc0e8", "#a9d3f7"), ("#8c6d1f", "#d6b656"), ("#6a5acd", "#a396ee"), ("#9aa4ae", "#6b7783")),
)
"""Blue, orange, green, purple and their neighbours after Okabe and Ito (2008), told apart by those who
see two colours as well; grey comes last, for the rest.
"""

_TONES = {
    "ground": ("#ffffff", "#12171d"),
    "ink": ("#171c22", "#e3e8ed"),
    "ink-2": ("#4a545f", "#a5b0bc"),
    "ink-3": ("#67717c", "#7f8b97"),
    "line": ("#e9edf0", "#1e262f"),
    "line-strong": ("#c9d0d7", "#35404c"),
    "accent": ("#1b5fc1", "#7db4ff"),
}


def config(dark: bool) -> Config:
    """Vega-Lite's ``config`` of a theme."""
    theme = int(dark)
    tone = {name: pair[theme] for name, pair in _TONES.items()}
    ranges: dict[str, Any] = {
        name: [pair[theme] for pair in palette.values()] for name, palette in PALETTES.items()
    }
    categories = [pair[theme] for pair in CATEGORIES]
    return {
        "background": tone["ground"],
        "font": FONT,
        "padding": 4,
        "numberFormat": ",~f",
        "range": {**ranges, "category": categories, "ordinal": categories},
        "view": {"stroke": None},
        "axis": {
            "domainColor": tone["line-strong"],
            "tickColor": tone["line-strong"],
            "tickSize": 4,
            "gridColor": tone["line"],
            "labelColor": tone["ink-2"],
            "labelFontSize": 11,
            "labelLimit": 210,
            "labelOverlap": "greedy",
            "titleColor": tone["ink-3"],
            "titleFontSize": 11,
            "titleFontWeight": "normal",
            "titlePadding": 8,
        },
        "axisX": {"grid": False, "labelPadding": 4},
        "axisY": {"domain": False, "ticks": False, "labelPadding": 6, "tickCount": 5},
        "axisYBand": {"grid": False, "labelFontSize": 11.5},
        "axisXQuantitative": {"grid": True, "domain": False, "ticks": False, "tickCount": 5},
        "legend": {
            "orient": "top",
            "direction": "horizontal",
            "columns": 5,
            "title": None,
            "labelColor": tone["ink-2"],
            "labelFontSize": 11,
            "labelLimit": 150,
            "symbolType": "square",
            "symbolSize": 90,
            "symbolStrokeWidth": 0,
            "rowPadding": 3,
            "columnPadding": 14,
            "offset": 10,
        },
        "title": {
            "anchor": "start",
            "color": tone["ink"],
            "fontSize": 15,
            "fontWeight": 600,
            "subtitleColor": tone["ink-3"],
            "subtitleFontSize": 11.5,
            "subtitlePadding": 5,
            "offset": 14,
        },
        "area": {"color": categories[0], "line": False, "opacity": 0.9, "interpolate": "monotone"},
        "bar": {"color": categories[0], "cornerRadiusEnd": 1.5, "binSpacing": 1},
        "line": {"color": categories[0], "strokeWidth": 2, "interpolate": "monotone"},
        "point": {"color": categories[0], "filled": True, "size": 50},
        "rule": {"color": tone["ink-2"]},
        "text": {"color": tone["ink-2"], "fontSize": 11},
    }
