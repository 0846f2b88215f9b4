"""What is wrong with those who send: refused, throttled, not understood, silent, or off the clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from detectors.wording import plain
from monitor.alerting.look import Condition, Look
from monitor.alerting.signs import SECOND, Sign

FEW = 20
"""Fewer records than this are too few to speak of a share."""

REGULAR = 10
"""Requests after which a sender may be called regular."""

SKEWED = 3
"""Requests after which a clock may be called wrong."""


def sender_conditions(look: Look, edge: Sign) -> Iterator[Condition]:
    """Everything that is wrong with senders at this look."""
    told: list[dict[str, Any]] = edge.detail.get("callers") or []
    names = {one["key"]: _name(one) for one in told if one["agent"] is None}
    yield from _throttled(look, edge, names)
    for one in told:
        if one["agent"] is None:
            yield from _refused(look, edge, one)
        if one["key"] not in look.revoked:
            yield from _silent(look, edge, one)
            yield from _skewed(look, one)


def _name(one: Mapping[str, Any]) -> str:
    """Whom a figure is about, for people. Names of keys and agents are shown, never trusted."""
    key = f"key {one['key']} ({plain(one['name'], 60)})"
    return key if one["agent"] is None else f"agent {plain(one['agent'], 80)} with {key}"


def _throttled(look: Look, edge: Sign, names: Mapping[str, str]) -> Iterator[Condition]:
    by_key: dict[str, dict[str, Any]] = (edge.detail.get("pressure") or {}).get("by_key") or {}
    for key, figures in by_key.items():
        count = look.grown(edge, figures.get("throttled_total", 0), "throttled", key)
        if count >= look.limits.throttled_requests:
            yield Condition(
                "throttled",
                "medium",
                f"{names.get(key, f'key {key}')}: {count:,} requests were answered 429 in the last "
                f"{look.limits.window_seconds:g} s (limit {look.limits.throttled_requests}); it sends more "
                "than its share.",
                about=key,
                evidence={"requests": count, "limit_requests": look.limits.throttled_requests},
            )


def _refused(look: Look, edge: Sign, one: Mapping[str, Any]) -> Iterator[Condition]:
    key = one["key"]
    records = look.grown(edge, one["records"], "records", key)
    rejected = look.grown(edge, one["rejected"], "rejected", key)
    unmapped = look.grown(edge, one["unmapped"], "unmapped", key)
    window = f"of the last {look.limits.window_seconds:g} s"
    if rejected:
        share = rejected / max(records, rejected)
        serious = rejected >= FEW and share >= look.limits.rejected_share
        reason = plain(one["reason"] or "not known", 160)
        yield Condition(
            "rejected",
            "medium" if serious else "low",
            f"{_name(one)}: {rejected:,} of {max(records, rejected):,} records {window} were refused "
            f"({share:.1%}), most often: {reason}. They are in the folder dead-letters/ of the data folder.",
            about=key,
            evidence={"rejected": rejected, "records": records, "share": round(share, 4), "reason": reason},
        )
    if unmapped >= FEW and unmapped >= look.limits.unmapped_share * records:
        share = unmapped / max(records, unmapped)
        yield Condition(
            "unmapped",
            "medium",
            f"{_name(one)}: {unmapped:,} of {max(records, unmapped):,} records {window} were recognised by "
            f"no map ({share:.1%}); they are kept whole, and judged by no rule.",
            about=key,
            evidence={"unmapped": unmapped, "records": records, "share": round(share, 4)},
        )


def _silent(look: Look, edge: Sign, one: Mapping[str, Any]) -> Iterator[Condition]:
    least = look.limits.silent_source_seconds
    sent_for = (one["last_at"] - one["first_at"]) / SECOND
    if one["ended"] or one["requests"] < REGULAR or sent_for < least:
        return
    limit = max(least, look.limits.silent_source_factor * one["usual_seconds"])
    # By the edge's clock; and while it was away, or refused everybody, nobody could be heard.
    silent = (edge.beat_at - max(one["last_at"], edge.started_at, look.refusing_until)) / SECOND
    if silent > limit:
        yield Condition(
            "silent-source",
            "medium",
            f"{_name(one)} has sent nothing for {silent:,.0f} s; it usually pauses for no more than "
            f"{one['usual_seconds']:g} s (limit {limit:g} s).",
            about=one["key"] if one["agent"] is None else f"{one['tenant']} {one['agent']}",
            evidence={
                "silent_seconds": round(silent),
                "usual_seconds": one["usual_seconds"],
                "limit_seconds": limit,
                "requests": one["requests"],
                "agent": one["agent"],
            },
        )


def _skewed(look: Look, one: Mapping[str, Any]) -> Iterator[Condition]:
    skew = one["skew_seconds"]
    if skew is None or one["skewed_requests"] < SKEWED:
        return
    ahead = skew > look.limits.clock_ahead_seconds
    if not ahead and -skew <= look.limits.clock_behind_seconds:
        return
    limit = look.limits.clock_ahead_seconds if ahead else look.limits.clock_behind_seconds
    told = (
        "its events count as having happened when they arrived"
        if ahead
        else "or it sends history, which belongs into `watchkeeper replay`"
    )
    yield Condition(
        "clock-skew",
        "medium" if ahead else "low",
        f"{_name(one)}: its clock is {abs(skew):,.0f} s {'ahead' if ahead else 'behind'} (limit {limit:g} s, "
        f"median of its last {one['skewed_requests']} requests); {told}.",
        about=one["key"],
        evidence={"skew_seconds": skew, "limit_seconds": limit, "requests": one["skewed_requests"]},
    )
