"""The coverage matrix as one page that needs nothing else: no script, no other host, both themes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf8; --ink: #22242a; --faint: #6d7078; --line: #dcdad4;
  --hole: #b3261e; --pale: hsl(172 45% 92%); --deep: hsl(172 55% 32%); --on: #fff; --off: #12332e; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e8e6e1; --faint: #9a9da5;
  --line: #32353c; --hole: #ff8a80; --pale: hsl(172 40% 16%); --deep: hsl(172 45% 60%);
  --on: #06211d; --off: #e3f5f1; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 90rem; padding: 2.5rem 1.5rem 4rem; background: var(--paper);
  color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.6rem 0 .8rem; }
p, .faint { color: var(--faint); } p { margin: .3rem 0; }
table { border-collapse: separate; border-spacing: 3px; width: 100%; max-width: 60rem; }
th { text-align: left; font-weight: 600; padding: .2rem .5rem; }
thead th { color: var(--faint); font-weight: 500; text-align: center; }
thead th:first-child { text-align: left; }
td { text-align: center; border-radius: 5px; height: 2.1rem; min-width: 4rem;
  font-variant-numeric: tabular-nums; }
.s0 { box-shadow: inset 0 0 0 1px var(--line); color: var(--faint); }
.s1, .s2, .s3, .s4 { font-weight: 600; }
.s1 { background: color-mix(in hsl, var(--pale), var(--deep) 15%); color: var(--off); }
.s2 { background: color-mix(in hsl, var(--pale), var(--deep) 40%); color: var(--off); }
.s3 { background: color-mix(in hsl, var(--pale), var(--deep) 80%); color: var(--on); }
.s4 { background: var(--deep); color: var(--on); }
.hole { color: var(--hole); font-weight: 600; }
.wall { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: 1.2rem .9rem; }
.tactic h3 { font-size: .92rem; margin: 0 0 .4rem; min-height: 2.6em; display: flex; flex-direction: column;
  justify-content: flex-end; border-bottom: 2px solid var(--line); padding-bottom: .25rem; }
.tactic ul { list-style: none; margin: 0; padding: 0; }
.tactic li { border-radius: 5px; padding: .28rem .5rem; margin-bottom: 4px; font-size: .8rem;
  line-height: 1.25; display: flex; justify-content: space-between; gap: .4rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .8rem; font-size: .85rem; }
@media print { body { max-width: none; padding: 0; } td, li { print-color-adjust: exact; } }
"""


def coverage_html(found: Mapping[str, Any]) -> str:
    """The page."""
    risks, atlas = found["owasp_agentic"], found["atlas"]
    open_risks = len(risks["holes"])
    reached = sum(tactic["covered"] > 0 for tactic in atlas["tactics"])
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Rule coverage</title><style>{STYLE}</style></head><body>",
            "<h1>What the rules cover</h1>",
            f"<p>{found['rules']} reporting rules. {len(risks['rows']) - open_risks} of {len(risks['rows'])} "
            f"agentic risks and {reached} of {len(atlas['tactics'])} ATLAS tactics have at least one.</p>",
            f"<h2>{_title(risks)}</h2>",
            _risks(found["levels"], risks["rows"]),
            f"<h2>{_title(atlas)}</h2>",
            '<div class="wall">',
            *map(_tactic, atlas["tactics"]),
            "</div>",
            f"<footer class=faint>Sources: {_source(risks)}; {_source(atlas)}.</footer></body></html>\n",
        ]
    )


def _risks(levels: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    names = [*levels]
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in ("risk", *names, "all"))
    lines = []
    for row in rows:
        cells = "".join(_cell(row["levels"][name]) for name in names)
        total = f"{row['rules']}" if row["rules"] else "<span class=hole>no rule</span>"
        if row["dormant"]:
            total += f" <span class=faint>+{row['dormant']} dormant</span>"
        lines.append(
            f"<tr><th scope=row><span class=faint>{escape(row['id'])}</span> {escape(row['name'])}</th>"
            f"{cells}<td>{total}</td></tr>"
        )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _cell(count: int) -> str:
    return f"<td class=s{_shade(count)}>{count or '·'}</td>"


def _shade(count: int) -> int:
    return sum(count >= least for least in (1, 2, 4, 8))


def _tactic(tactic: Mapping[str, Any]) -> str:
    items = "".join(
        f"<li class=s{_shade(cell['rules'])} title='{escape(cell['id'], quote=True)}'>"
        f"<span>{escape(cell['name'])}</span><span>{cell['rules'] or ''}</span></li>"
        for cell in sorted(tactic["techniques"], key=lambda cell: -cell["rules"])
    )
    hole = "" if tactic["covered"] else " <span class=hole>no rule</span>"
    told = f"{tactic['covered']} of {len(tactic['techniques'])}"
    return (
        f"<section class=tactic><h3>{escape(tactic['name'])} <span class=faint>{told}{hole}</span></h3>"
        f"<ul>{items}</ul></section>"
    )


def _title(about: Mapping[str, Any]) -> str:
    return escape(f"{about['title']} {about['version']}")


def _source(about: Mapping[str, Any]) -> str:
    return escape(f"{about['title']} {about['version']} ({about['date']}), {about['source']}")
