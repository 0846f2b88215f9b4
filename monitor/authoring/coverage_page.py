"""The coverage matrix in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from monitor.tables import LEVEL_STYLES, table

HOLE = Text("✗ no rule", style="bold red")


def coverage_page(found: Mapping[str, Any]) -> RenderableType:
    """OWASP's risks by level, then ATLAS's tactics with their techniques."""
    risks, atlas = found["owasp_agentic"], found["atlas"]
    grid = table("", "risk", *found["levels"], "rules")
    for row in risks["rows"]:
        counts = [_count(row["levels"][level], LEVEL_STYLES[level]) for level in found["levels"]]
        grid.add_row(row["id"], row["name"], *counts, _total(row))
    columns = table("", "tactic", "covered", "techniques with a rule", "without")
    for tactic in atlas["tactics"]:
        with_rule = [f"{_short(cell)} ×{cell['rules']}" for cell in tactic["techniques"] if cell["rules"]]
        without = [_short(cell) for cell in tactic["techniques"] if not cell["rules"]]
        columns.add_row(
            tactic["id"],
            tactic["name"],
            f"{tactic['covered']} of {len(tactic['techniques'])}",
            Text(", ".join(with_rule)) if with_rule else HOLE,
            Text(", ".join(without), style="dim"),
        )
    holes = [*risks["holes"], *atlas["holes"]]
    return Group(
        Text(f"{risks['title']} {risks['version']}", style="bold"),
        grid,
        Text(f"\n{atlas['title']} {atlas['version']}", style="bold"),
        columns,
        Text(f"\n{found['rules']} rules report; without any: {', '.join(holes) or 'nothing'}"),
    )


def _short(cell: Mapping[str, Any]) -> str:
    return f"{cell['id'].removeprefix('AML.')} {cell['name']}"


def _count(count: int, style: str) -> Text:
    return Text(str(count), style=style) if count else Text("·", style="dim")


def _total(row: Mapping[str, Any]) -> Text:
    shown = Text(str(row["rules"])) if row["rules"] else HOLE.copy()
    return shown.append(f" +{row['dormant']} dormant", style="dim") if row["dormant"] else shown
