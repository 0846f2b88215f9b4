"""What is wrong with Watchkeeper or with those who send to it, read off the heartbeats.

All is judged by the processes' own clocks and counters, never by a timestamp that a sender
chose, but for the condition about senders' clocks.
"""

from __future__ import annotations

from collections.abc import Iterator

from detectors.wording import plain
from monitor.alerting.look import Condition, Look
from monitor.alerting.senders import sender_conditions
from monitor.alerting.signs import SECOND, Sign

WATCHED = ("edge", "console")
"""Processes besides detection, which looks at them."""

MAX_FAULT = 400


def conditions(look: Look) -> Iterator[Condition]:
    """Everything that is wrong at this look."""
    yield from _processes(look)
    for check in (_spool, _disk, _dead_letters, _cut, sender_conditions):
        if edge := look.alive("edge"):
            yield from check(look, edge)
    yield from _storing(look)
    yield from _judging(look)


def _processes(look: Look) -> Iterator[Condition]:
    for name in WATCHED:
        silent = look.silent_for(name)
        if silent > look.limits.silent_process_seconds:
            limit = look.limits.silent_process_seconds
            yield Condition(
                "process-silent",
                "critical" if name == "edge" else "high",
                f"The {name} process has shown no sign of life for {silent:.0f} s, expected one every second "
                f"(limit {limit:g} s)" + ("; senders are not heard." if name == "edge" else "."),
                about=name,
                evidence={"silent_seconds": round(silent, 1), "limit_seconds": limit},
            )
    for name, sign in look.signs.items():
        former = look.known.get(name)
        if former is not None and former != sign.pid:
            yield Condition(
                "process-restarted",
                "high",
                f"The {name} process {former} ended unasked; process {sign.pid} has taken over.",
                about=name,
                once=f"{sign.pid}-{sign.started_at}",
                evidence={"former_pid": former, "pid": sign.pid},
            )


def _spool(look: Look, edge: Sign) -> Iterator[Condition]:
    pressure = edge.detail.get("pressure") or {}
    size, limit = edge.counted("spool_bytes"), look.settings.spool.max_bytes
    share = size / limit
    refused = look.grown(edge, pressure.get("refused_full_total", 0), "refused_full")
    full = bool(pressure.get("spool_full"))
    if full or share >= look.limits.spool_share:
        told = f"; {refused:,} requests were answered 503 in the last {look.limits.window_seconds:g} s"
        yield Condition(
            "spool-full",
            "critical" if full else "high",
            f"The spool holds {size / 2**20:,.1f} MiB, {share:.0%} of spool.max_bytes "
            f"({limit / 2**20:,.1f} MiB)" + (told if refused else "") + ".",
            evidence={"spool_bytes": round(size), "limit_bytes": limit, "refused_requests": refused},
        )


def _disk(look: Look, edge: Sign) -> Iterator[Condition]:
    pressure = edge.detail.get("pressure") or {}
    if fault := pressure.get("disk_fault"):
        free = edge.counted("spool_free_bytes")
        yield Condition(
            "disk-fault",
            "critical",
            f"Events are refused with 503: {_said(fault)}.",
            evidence={"fault": _said(fault), "free_bytes": round(free)},
        )


def _dead_letters(look: Look, edge: Sign) -> Iterator[Condition]:
    lost = look.grown(edge, edge.counted("edge_dead_letters_lost_total"), "dead_letters_lost")
    evicted = look.grown(edge, edge.counted("edge_dead_letters_evicted_total"), "dead_letters_evicted")
    fault = (edge.detail.get("pressure") or {}).get("dead_letters_fault")
    told = []
    if lost or fault:
        why = f": {_said(fault)}" if fault else ""
        told.append(f"{lost:,} refused records could not be kept as dead letters{why}.")
    if evicted:
        told.append(f"{evicted:,} dead letters that nobody had replayed went to make room for newer ones.")
    if told:
        yield Condition(
            "dead-letters-lost",
            "high" if lost or fault else "medium",
            f"In the last {look.limits.window_seconds:g} s: {' '.join(told)}",
            evidence={"lost": lost, "evicted": evicted, "fault": _said(fault) if fault else None},
        )


def _cut(look: Look, edge: Sign) -> Iterator[Condition]:
    if cut := int(edge.detail.get("cut_bytes") or 0):
        yield Condition(
            "spool-cut",
            "medium",
            f"{cut:,} bytes at the end of the spool were torn and were cut off when the edge began; "
            "they were never answered.",
            once=f"{edge.pid}-{edge.started_at}",
            evidence={"cut_bytes": cut},
        )


def _storing(look: Look) -> Iterator[Condition]:
    console = look.alive("console")
    if console is None:
        return
    if fault := console.detail.get("fault"):
        yield Condition("storing-failed", "high", f"{_said(fault)}.", evidence={"fault": _said(fault)})
    if since := console.counted("unstored_since_at"):
        yield from _lag(look, "storing-lag", since, look.at, look.limits.storing_lag_seconds)


def _judging(look: Look) -> Iterator[Condition]:
    detection = look.signs.get("detection")
    if detection is None:
        return
    if fault := detection.detail.get("fault"):
        yield Condition("judging-failed", "critical", f"{_said(fault)}.", evidence={"fault": _said(fault)})
    if edge := look.alive("edge"):
        # From tick to tick: the edge writes one a second, whether or not events come.
        yield from _lag(
            look,
            "detection-lag",
            detection.counted("ticked_at"),
            edge.counted("ticked_at"),
            look.limits.detection_lag_seconds,
        )
    if dropped := look.grown(detection, detection.counted("evicted_state_total"), "evicted"):
        yield Condition(
            "state-evicted",
            "medium",
            f"Detectors dropped {dropped:,} open sessions or groups in the last "
            f"{look.limits.window_seconds:g} s for want of room.",
            evidence={"evicted": dropped},
        )


def _lag(look: Look, kind: str, reached: float, to_reach: float, limit: float) -> Iterator[Condition]:
    """Behind by the time between two marks; what was left over from before the watch began is no lag yet."""
    lag = (to_reach - max(reached, look.since)) / SECOND
    if lag > limit:
        what = "Judging" if kind == "detection-lag" else "Storing"
        yield Condition(
            kind,
            "high",
            f"{what} is {lag:,.0f} s behind what senders were answered for (limit {limit:g} s).",
            evidence={"lag_seconds": round(lag, 1), "limit_seconds": limit},
        )


def _said(fault: object) -> str:
    """A fault in a process's own words, one line of them: what it quotes may be an agent's."""
    return plain(str(fault), MAX_FAULT)
