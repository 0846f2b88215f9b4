"""What the commands print for people about dead letters and the daemon's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from monitor.tables import facts, moment, plain, table

MOST_RAW = 20_000


def letters_table(letters: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Dead letters, newest first."""
    if not letters:
        return Text("no dead letters")
    shown = table("id", "refused (UTC)", "tenant", "key", "bytes", "reason", "replayed")
    for letter in letters:
        shown.add_row(
            letter["id"],
            moment(letter["at"]),
            plain(letter["tenant"]),
            plain(letter["key_id"]),
            f"{letter['size']:,}",
            plain(letter["reason"]),
            moment(letter["replayed_at"]),
        )
    return shown


def letter_page(letter: Mapping[str, Any]) -> RenderableType:
    """One dead letter, and what was sent as far as a terminal can take it."""
    kept = {"record": "one event", "request": "a whole request", "excerpt": "only the beginning"}
    rows = [
        ("id", letter["id"]),
        ("refused (UTC)", moment(letter["at"])),
        ("reason", letter["reason"]),
        ("tenant", letter["tenant"]),
        ("key", letter["key_id"]),
        ("came by", letter["way"]),
        ("content type", letter["content_type"]),
        ("in the request", f"record {letter['index']}" if letter["form"] == "record" else ""),
        ("kept", f"{kept[letter['form']]}, {letter['size']:,} bytes, as {letter['encoding']}"),
        ("replayed (UTC)", moment(letter["replayed_at"])),
        ("replayed by", letter["replayed_by"]),
    ]
    return Group(facts(rows), Text(), plain(letter["raw"], MOST_RAW))


def status_page(status: Mapping[str, Any]) -> RenderableType:
    """Processes, how the intake does, what waits, and what is warm."""
    shown = table("process", "pid", "last sign of life", "counters")
    for process in status["processes"]:
        counted = {
            name: value
            for name, value in process["metrics"].items()
            if not name.endswith("_at") and name not in INTAKE
        }
        counters = ", ".join(f"{name} {value:,.0f}" for name, value in sorted(counted.items()))
        age = f"{process['age_seconds']:.1f} s ago"
        shown.add_row(process["name"], str(process["pid"]), age, counters)
    edge = next((process for process in status["processes"] if process["name"] == "edge"), None)
    rows = [(name.replace("_", " "), _told(value)) for name, value in status.items() if name != "processes"]
    parts: list[RenderableType] = [shown, Text()]
    if edge is not None:
        parts += [Text("intake", style="bold"), facts(_intake(edge)), Text()]
    return Group(*parts, facts([(name, value) for name, value in rows if not isinstance(value, list)]))


INTAKE = {
    "edge_events_total": "events kept",
    "edge_duplicates_total": "repeats left out",
    "edge_conflicts_total": "repeated ids with other content",
    "edge_rejected_total": "refused",
    "edge_unmapped_total": "kept unmapped",
    "edge_ignored_spans_total": "spans left out",
    "edge_waiting_events": "events waiting for the disk",
    "edge_waiting_bytes": "bytes being taken in",
    "edge_throttled_total": "requests told to slow down (429)",
    "edge_refused_full_total": "requests refused, spool or disk full (503)",
    "spool_bytes": "bytes in the spool",
    "spool_free_bytes": "bytes free on its disk",
}
"""The edge's counters in words, in the order of an event's way."""


def _intake(edge: Mapping[str, Any]) -> list[tuple[str, object]]:
    """The edge's counters and what presses on it; only what is known."""
    metrics, detail = edge["metrics"], edge["detail"]
    pressure = detail.get("pressure") or {}
    rows: list[tuple[str, object]] = [
        (word, f"{metrics[name]:,.0f}") for name, word in INTAKE.items() if name in metrics
    ]
    letters = detail.get("dead_letters")
    if letters is not None:
        told = f"{letters:,}" + (" (`watchkeeper deadletters list`)" if letters else "")
        rows.append(("dead letters kept", told))
    faults = [pressure.get("disk_fault"), pressure.get("dead_letters_fault")]
    faults += ["the spool is full"] if pressure.get("spool_full") else []
    rows.append(("in its way", "; ".join(filter(None, faults))))
    by_key = pressure.get("by_key") or {}
    rows += [
        (f"pressed: {key}", ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in met.items()))
        for key, met in list(by_key.items())[:10]
    ]
    return rows


def _told(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{count} {word}" for word, count in value.items())
    return value
