"""A panel and its rows as a Vega-Lite specification: in the page's width, or as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monitor.dashboards.definition import Panel
from monitor.dashboards.themes import PALETTES, config
from monitor.dashboards.window import Window

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"

HEIGHT = 220
ROW_HEIGHT = 21
"""Pixels of a chart over time, and of one bar where each has a row of its own."""

PICTURE_WIDTH = 760
MILLI = 1_000


def chart(panel: Panel, rows: Sequence[dict[str, Any]], window: Window) -> Spec:
    """Without colours: those come with the theme. Times are milliseconds, as Vega has them."""
    encoding = panel.encoding.model_dump(exclude_unset=True)
    times = set()
    for name, said in encoding.items():
        for channel in said if isinstance(said, list) else [said]:
            if channel.get("type") == "temporal":
                times.add(channel["field"])
                _in_time(name, channel, panel, window)
            _in_colours(channel, rows)
    _without_gaps(panel, encoding, window)
    return {
        "$schema": SCHEMA,
        "data": {"values": [_with_milliseconds(row, times) for row in rows]},
        "mark": panel.mark,
        "encoding": encoding,
        "height": _height(panel, encoding, rows),
    }


def page_chart(panel: Panel, rows: Sequence[dict[str, Any]], window: Window) -> Spec:
    """As the page draws it: as wide as its place."""
    fitted = {"type": "fit-x", "contains": "padding"}
    return {**chart(panel, rows, window), "width": "container", "autosize": fitted}


def picture(spec: Spec, title: str, subtitle: str, dark: bool = False, width: int = PICTURE_WIDTH) -> Spec:
    """As a picture shows it: with its title, and the colours of a theme."""
    return {
        **spec,
        "width": width,
        "padding": 18,
        "title": {"text": title, "subtitle": subtitle},
        "config": config(dark),
    }


def _in_time(name: str, channel: dict[str, Any], panel: Panel, window: Window) -> None:
    """Times in UTC over the whole window, bars as wide as a step."""
    if name == "tooltip":
        channel.setdefault("format", "%d %b %H:%M")
        channel["timeUnit"] = "utcyearmonthdatehoursminutesseconds"
        return
    if name not in ("x", "y"):
        return
    if panel.kind == "bar" and f"{name}2" not in panel.encoding.model_fields_set:
        channel["timeUnit"] = window.unit
    ends = window.last if panel.kind in ("area", "line") else window.last + window.step
    # As expressions: Vega-Lite makes dates of numbers, which Vega's interpreter takes for years.
    bounds = {"domainMin": _literal(window.since), "domainMax": _literal(ends)}
    channel["scale"] = {"type": "utc", **bounds, **(channel.get("scale") or {})}
    told = {"title": None, "format": window.format, "labelFlush": True, "tickCount": 8}
    channel["axis"] = {**told, **(channel.get("axis") or {})}


def _in_colours(channel: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """A named range gives each of its values its own colour, whichever others there are."""
    scale = channel.get("scale") or {}
    palette = PALETTES.get(scale.get("range", "")) if isinstance(scale.get("range"), str) else None
    if palette is None:
        return
    there = {row.get(channel.get("field", "")) for row in rows}
    channel["scale"] = {"domain": [*palette], **scale}
    legend = channel.get("legend") or {}
    channel["legend"] = {"values": [value for value in palette if value in there], **legend}


def _without_gaps(panel: Panel, encoding: dict[str, Any], window: Window) -> None:
    """Where nothing happened, an area or a line is at zero; it is not drawn across."""
    x, y = encoding["x"], encoding["y"]
    if panel.kind in ("area", "line") and x.get("type") == "temporal" and y.get("type") == "quantitative":
        steps = range(window.since // MILLI, window.last // MILLI + 1, window.step // MILLI)
        y["impute"] = {"value": 0, "keyvals": [*steps]}


def _height(panel: Panel, encoding: dict[str, Any], rows: Sequence[dict[str, Any]]) -> int:
    if panel.height is not None:
        return panel.height
    y = encoding["y"]
    if y.get("type") not in ("nominal", "ordinal"):
        return HEIGHT
    beside = encoding.get("yOffset", {}).get("field")
    return ROW_HEIGHT * max(1, len({(row.get(y["field"]), row.get(beside or "")) for row in rows}))


def _literal(moment: int) -> dict[str, str]:
    return {"expr": str(moment // MILLI)}


def _with_milliseconds(row: dict[str, Any], times: set[str]) -> dict[str, Any]:
    return {
        name: value // MILLI if name in times and isinstance(value, int) else value
        for name, value in row.items()
    }
