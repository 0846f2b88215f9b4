"""What commands print for people: rich tables. Agent-controlled text is shown as plain text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

LEVEL_STYLES = {
    "critical": "bold white on red",
    "high": "bold red",
    "medium": "yellow",
    "low": "cyan",
    "informational": "dim",
}
PIPE_WIDTH = 160

TIMES = ("detected_at", "sent_at", "accepted_at", "confirmed_at", "last_action_at", "silent_at")


def show(page: RenderableType) -> None:
    """Print to stdout, as wide as the terminal is; into a pipe or a file, wide enough to read."""
    terminal = sys.stdout.isatty()
    Console(width=None if terminal else PIPE_WIDTH, soft_wrap=False).print(page)


def plain(value: object, most: int = 300) -> Text:
    """A value as text that cannot style, link or move the cursor; bounded."""
    text = "" if value is None else str(value)
    shown = "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text
    )
    return Text(shown if len(shown) <= most else shown[: most - 1] + "…")


def level(value: str) -> Text:
    """A level, always as a word, coloured where there is colour."""
    return Text(value, style=LEVEL_STYLES.get(value, ""))


def moment(micros: int | None) -> str:
    """A time in the state database as UTC, to the second."""
    return "" if micros is None else datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


def table(*columns: str) -> Table:
    """An empty table without lines."""
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def alerts_table(alerts: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The queue."""
    if not alerts:
        return Text("no alerts")
    shown = table("id", "level", "created (UTC)", "title", "agent", "count", "status", "owner")
    for alert in alerts:
        shown.add_row(
            plain(alert["id"]),
            level(alert["level"]),
            moment(alert["created_at"]),
            plain(alert["title"]),
            plain(alert["agent_id"]),
            str(alert["count"]),
            alert["status"] + (f" ({alert['verdict']})" if alert["verdict"] else ""),
            plain(alert["owner"]),
        )
    return shown


def incidents_table(incidents: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Incidents, one a line."""
    if not incidents:
        return Text("no incidents")
    shown = table("id", "level", "created (UTC)", "title", "agent", "alerts", "status", "owner")
    for one in incidents:
        shown.add_row(
            plain(one["id"]),
            level(one["level"]),
            moment(one["created_at"]),
            plain(one["title"]),
            plain(one["agent_id"]),
            str(one["alerts"]),
            one["status"] + (f" ({one['verdict']})" if one["verdict"] else ""),
            plain(one["owner"]),
        )
    return shown


def incident_page(found: Mapping[str, Any]) -> RenderableType:
    """One incident: its alerts, then its log."""
    log = [
        plain(f"{moment(one['at'])}  {one['actor']} {one['kind'].replace('_', ' ')}  {one['text']}", 2000)
        for one in found["log"]
    ]
    return Group(
        incidents_table([found["incident"]]),
        Text(),
        alerts_table(found["alerts"]),
        Text("\nlog", style="bold"),
        *log,
    )


def facts(rows: Iterable[tuple[str, object]]) -> Table:
    """Names and values, one pair a line; absent values are left out."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value not in (None, "", [], {}):
            table.add_row(name, value if isinstance(value, Text) else plain(value, 2000))
    return table


def alert_page(alert: Mapping[str, Any]) -> RenderableType:
    """One alert, in the order in which an analyst asks."""
    parts: list[RenderableType] = [
        Text.assemble(level(alert["level"]), "  ", plain(alert["title"])),
        plain(alert["reason"], 2000),
        Text(),
        facts(
            [
                ("agent", alert["agent_id"]),
                ("session", alert["session_id"]),
                ("rule", f"{alert['rule_id']} ({alert['detector']}, version {alert['rule_version']})"),
                ("status", alert["status"]),
                ("verdict", alert["verdict"]),
                ("owner", alert["owner"]),
                ("first event", moment(alert["first_event_at"])),
                ("last event", moment(alert["last_event_at"])),
                ("events", ", ".join(alert["event_ids"][:10])),
                *((f"evidence {name}", _as_text(value)) for name, value in alert["evidence"].items()),
            ]
        ),
    ]
    if alert["runbook"]:
        parts += [
            Text("\nrunbook", style="bold"),
            *(plain(f"{number}. {step}") for number, step in enumerate(alert["runbook"], 1)),
        ]
    if alert.get("orders"):
        parts += [Text("\norders", style="bold"), *(Text(order_line(order)) for order in alert["orders"])]
    if alert.get("changes"):
        parts.append(Text("\nhistory", style="bold"))
        parts += [
            plain(
                f"{moment(c['at'])}  {c['actor']}: {c['field']} {c['old'] or '–'} → {c['new']}  {c['reason']}"
            )
            for c in alert["changes"]
        ]
    return Group(*parts)


def _as_text(value: object) -> object:
    return value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False)


def order_line(order: Mapping[str, Any]) -> str:
    """An order in one line: target, state, and the time from each step to the next."""
    target = order["session_id"] if order["scope"] == "session" else order["agent_id"]
    steps = [(name.removesuffix("_at"), order[name]) for name in TIMES if order.get(name)]
    spans = [f"{name} +{(at - before) / 1e3:,.0f} ms" for (_, before), (name, at) in pairwise(steps)]
    detail = f"  {order['detail']}" if order.get("detail") else ""
    return plain(
        f"{order['action']} {order['scope']} {target}: {order['state']}  {', '.join(spans)}{detail}", 500
    ).plain


def check_page(found: Mapping[str, Any]) -> RenderableType:
    """What `watchkeeper check` found."""
    lines: list[RenderableType] = [facts(found["settings_flat"].items()), Text()]
    lines += [Text.assemble(("fault  ", "bold red"), plain(fault)) for fault in found["faults"]]
    word = (
        Text("all is well", style="green") if found["ok"] else Text("not usable as it is", style="bold red")
    )
    lines += [Text.assemble(("redaction  ", "dim"), plain(policy)) for policy in found["redaction"]]
    lines.append(Text.assemble(f"{found['rules']} rules, {found['rule_tests']} tests in them: ", word))
    return Group(*lines)


def findings_page(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What `watchkeeper scan` found: when, how bad, who, and beneath it why."""
    lines: list[RenderableType] = []
    for match in found:
        who = " ".join(filter(None, (match["agent_id"], match["session_id"])))
        head = Text.assemble(match["timestamp"][:19].replace("T", " "), "  ", level(match["level"]), "  ")
        lines.append(head.append_text(plain(match["title"])).append(f"  {match['detector']}  ", style="dim"))
        lines.append(Text("    ").append_text(plain(f"{who}: {match['reason']}", 600)))
    lines.append(Text(f"{len(found)} findings" if found else "nothing found"))
    return Group(*lines)


def hunt_page(found: Mapping[str, Any]) -> RenderableType:
    """What a hunt has found: by day with bars, then what would have alerted."""
    head = Text.assemble(level(found["level"]), "  ", plain(found["title"]))
    how = "by SQL" if found["how"] == "sql" else f"streamed: {found['why']}"
    told = f"{found['since'][:16]} to {found['until'][:16]} UTC, {how}"
    counted = (
        f"{found['findings']} findings, {found['alerts']} alerts, {found['agents']} agents"
        if found["findings"]
        else "nothing found: it would have alerted nobody"
    )
    days = table("day (UTC)", "events", "findings", "alerts", "")
    most = max([1, *(day["findings"] for day in found["days"])])
    for day in found["days"]:
        events = "" if day["events"] is None else str(day["events"])
        bar = "█" * round(30 * day["findings"] / most)
        days.add_row(day["day"], events, str(day["findings"]), str(day["alerts"]), bar)
    hits = table("first findings (UTC)", "agent", "session", "events")
    for hit in found["hits"][:20]:
        ids = ", ".join(hit["event_ids"][:3]) + (" …" if len(hit["event_ids"]) > 3 else "")
        hits.add_row(
            hit["timestamp"][:19].replace("T", " "),
            plain(hit["agent_id"]),
            plain(hit["session_id"]),
            plain(ids),
        )
    parts: list[RenderableType] = [head, Text(told, style="dim"), Text(counted)]
    parts += [Text(), days] if found["days"] else []
    parts += [Text(), hits] if found["hits"] else []
    return Group(*parts)


def keys_table(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """API keys, without their secrets."""
    columns = ("id", "name", "tenant", "agents", "scopes", "created (UTC)", "expires (UTC)", "revoked (UTC)")
    shown = table(*columns)
    for key in found:
        shown.add_row(
            key["id"],
            plain(key["name"]),
            plain(key["tenant"]),
            plain(", ".join(key["agents"]) or "any"),
            ", ".join(key["scopes"]),
            moment(key["created_at"]),
            moment(key["expires_at"]),
            moment(key["revoked_at"]),
        )
    return shown


def agents_table(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Agents, seen and declared."""
    shown = table(
        "agent", "tenant", "declared", "owner", "risk tier", "sessions", "events", "last seen (UTC)"
    )
    for one in found:
        said = one["declared"]
        shown.add_row(
            plain(one["agent_id"]),
            plain(one["tenant"]),
            "yes" if said else "never",
            plain(said["owner"]) if said else "",
            said["risk_tier"] if said else "",
            f"{one['sessions']:,}",
            f"{one['events']:,}",
            (one["last_seen"] or "never")[:19].replace("T", " "),
        )
    return shown


def people_table(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Everybody who uses the console."""
    shown = table("name", "role", "signs in by", "email", "since (UTC)", "disabled (UTC)")
    for one in found:
        way = "provider" if one["issuer"] else "password" if one["password"] else "one-time link"
        shown.add_row(
            plain(one["name"]),
            one["role"],
            way,
            plain(one["email"] or ""),
            moment(one["created_at"]),
            moment(one["disabled_at"]),
        )
    return shown


def audit_table(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The audit trail."""
    shown = table("at (UTC)", "who", "did", "to", "why", "details", "from")
    for one in found:
        details = ", ".join(f"{name} {value}" for name, value in one["detail"].items())
        shown.add_row(
            moment(one["at"]),
            plain(one["actor"]),
            plain(one["action"]),
            plain(one["subject"]),
            plain(one["reason"]),
            plain(details),
            plain(one["address"] or ""),
        )
    return shown


def backtest_page(said: Mapping[str, Any]) -> RenderableType:
    """What `watchkeeper backtest` would have alerted on, and how that stands against the labels."""
    alerts = said["alerts"]
    head = (
        f"{said['events']:,} events, {said['sessions']:,} sessions, {said['sessions_counted']:,} of them "
        f"counted over {said['days']:g} days; {said['seconds']:g} s"
    )
    budget = (
        f"{alerts['sessions']} sessions would have alerted, {alerts['per_day']:g} a day; "
        f"the budget of false alerts is one session in {1 / said['false_alert_rate']:,.0f}"
    )
    agents = table("agent", "sessions with an alert")
    for agent, count in list(alerts["by_agent"].items())[:20]:
        agents.add_row(plain(agent), str(count))
    if said["labels"] is None:
        detectors = table("detector", "alerts")
        for name, count in alerts["by_detector"].items():
            detectors.add_row(name, str(count))
        return Group(head, budget, detectors, agents)
    known = said["labels"]
    labelled = (
        f"labels: {known['attacks']:,} attacks, {known['harmless']:,} harmless sessions; "
        f"{known['left_out']:,} others are left out"
    )
    columns = ("detector", "recall", "false positives", "AUC", "recall at 1%", "at 5%", "at or before")
    measured = table(*columns)
    for name, figures in known["detectors"].items():
        measured.add_row(
            name,
            _share(figures["recall"]),
            _share(figures["false_positive_rate"]),
            _figure(figures["auc"], ".3f"),
            _figure(figures["recall_at"].get("0.01"), ".1%"),
            _figure(figures["recall_at"].get("0.05"), ".1%"),
            _share(figures["at_or_before_first_malicious"]),
        )
    return Group(head, budget, labelled, measured, agents)


def _share(rate: Mapping[str, Any] | None) -> str:
    if rate is None or rate["value"] is None:
        return ""
    return f"{rate['value']:.1%} ({rate['low']:.1%} to {rate['high']:.1%})"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
