"""What `watchkeeper rules` prints for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from monitor.authoring.lint import Report
from monitor.authoring.trials import Trials
from monitor.tables import level, plain, table

SEVERITY_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def list_page(rules: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The rules, one a line."""
    shown = table("title", "level", "tags", "response", "kind", "state", "tests", "version")
    for rule in rules:
        response = rule["response"]
        shown.add_row(
            plain(rule["title"]),
            level(rule["level"]) if rule["reports"] else Text("–", style="dim"),
            plain(" ".join(map(_short, rule["tags"]))),
            f"stop {response['scope']}" if response else "",
            rule["kind"],
            _state(rule["state"]),
            str(rule["tests"]),
            rule["version"][:8],
        )
    counts = f"{len(rules)} rules, {sum(rule['reports'] for rule in rules)} of which report"
    return Group(shown, Text(counts))


def _short(tag: str) -> str:
    """A tag without its taxonomy, which its id tells as well."""
    for start in ("owasp-asi.2026.", "owasp-llm.2026.", "atlas.", "attack."):
        tag = tag.removeprefix(start)
    return tag


def _state(value: str) -> Text:
    return Text(value, style="yellow" if value.startswith("dormant") else "")


def check_page(report: Report) -> RenderableType:
    """What `check` found, and the verdict."""
    lines: list[RenderableType] = []
    for one in report.remarks:
        where = plain(f"{one.file}: {one.rule}: " if one.rule else f"{one.file}: ", 600)
        mark = Text(f"{one.severity:<8} ", style=SEVERITY_STYLES[one.severity])
        lines.append(mark.append_text(where).append_text(plain(one.text, 1000)))
    told = {
        name: sum(one.severity == name for one in report.remarks) for name in ("error", "warning", "note")
    }
    counts = [_many(report.rules, "rule"), *(_many(count, name) for name, count in told.items() if count)]
    verdict = Text("not as it should be", style="bold red")
    if report.ok:
        verdict = Text("usable" if told["warning"] else "all is well", style="green")
    lines.append(Text.assemble(f"{', '.join(counts)}: ", verdict))
    return Group(*lines)


def _many(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def test_page(trials: Trials) -> RenderableType:
    """The failures, the untested, and the count."""
    lines: list[RenderableType] = []
    if trials.failed:
        shown = table("failed test", "rule", "expected", "found", "file")
        for one in trials.failed:
            words = ("none", "findings") if isinstance(one.expected, bool) else None
            expected = words[one.expected] if words else str(one.expected)
            shown.add_row(plain(one.name), plain(one.title), expected, str(one.found), plain(one.path))
        lines.append(shown)
    for broken in trials.broken:
        told = f"{broken.rule.path}: {broken.rule.title}: {broken.test}: {broken.reason}"
        lines.append(Text.assemble(("broken  ", "bold red"), plain(told, 600)))
    lines += [
        Text.assemble(("untested  ", "yellow"), plain(f"{rule.title} ({rule.path})"))
        for rule in trials.untested
    ]
    verdict = Text("passed", style="green") if trials.ok else Text("failed", style="bold red")
    if not trials.count:
        verdict = Text("there is no test at all", style="bold red")
    passed = len(trials.results) - len(trials.failed)
    lines.append(Text.assemble(f"{passed} of {trials.count} tests passed: ", verdict))
    return Group(*lines)


def explain_page(told: Mapping[str, Any]) -> RenderableType:
    """The explanation as a tree, its sentence last."""
    rule = told["rule"]
    head = Text.assemble((rule["title"], "bold"), f"  {rule['kind']}, {rule['state']}")
    root = Tree(head.append(f"  {told['events_read']} events read", style="dim"))
    if told["correlation"] is not None:
        _correlation(root, told["correlation"])
    for base in told["bases"]:
        branch = root.add(
            Text.assemble("rule ", (base["rule"], "bold"), f": {base['hits']} hits; nearest events")
        )
        _events(branch, base["events"])
    _events(root, told["events"])
    for event in told["neighbours"]:
        branch = root.add(Text.assemble("what else it asks for at ", (event["event_id"], "bold")))
        for check in event["checks"]:
            branch.add(_mark(check["met"]).append(f"{check['demand']}: {check['found']}"))
    for finding in told["findings"]:
        root.add(Text.assemble(("fired  ", "bold red"), f"{finding['timestamp']}  {finding['reason']}"))
    return Group(root, Text(told["summary"], style="bold"))


def _mark(held: bool) -> Text:
    return Text("✓ ", style="green") if held else Text("✗ ", style="red")


def _events(root: Tree, events: Sequence[Mapping[str, Any]]) -> None:
    for event in events:
        names = ("event_type", "agent_id", "session_id", "tool_name")
        who = " ".join(event[name] for name in names if name in event)
        head = _mark(event["held"]).append(event["event_id"], style="bold").append(f"  {who}", style="dim")
        branch = root.add(head)
        _condition(branch, event["condition"])
        if "note" in event:
            branch.add(Text(event["note"], style="yellow"))


def _condition(root: Tree, condition: Mapping[str, Any]) -> None:
    mark = _mark(condition["held"])
    if condition["kind"] != "leaf":
        branch = root.add(mark.append(condition["kind"], style="italic"))
        for item in condition["items"]:
            _condition(branch, item)
        return
    seen = condition["seen"]
    mark.append(condition["wanted"])
    mark.append("  seen: ", style="dim").append("nothing" if seen is None else str(seen), style="cyan")
    if "other" in condition:
        other = condition["other"]
        mark.append(" against ", style="dim").append("nothing" if other is None else str(other), style="cyan")
    root.add(mark)


def _correlation(root: Tree, related: Mapping[str, Any]) -> None:
    by = f" by {', '.join(related['group_by'])}" if related["group_by"] else ""
    bases = root.add(Text(f"{related['kind']}{by} within {related['timespan']}"))
    for base in related["bases"]:
        ids = ", ".join(base["events"])
        bases.add(_mark(base["hits"] > 0).append(f"{base['rule']}: {base['hits']} hits  {ids}"))
    for group in related["groups"]:
        named = ", ".join(f"{name} {value}" for name, value in group["group"].items()) or "all events"
        line = _mark(group["fired"]).append(named, style="bold").append(f": {group['window']}")
        root.add(line.append(f"  {', '.join(group['events'])}", style="dim"))
    if related["groups_in_all"] > len(related["groups"]):
        root.add(
            Text(f"and {related['groups_in_all'] - len(related['groups'])} groups further off", style="dim")
        )
    for loose in related["without_group"]:
        root.add(
            _mark(False).append(
                f"{loose['event_id']} belongs to no group: it lacks {', '.join(loose['lacks'])}"
            )
        )
