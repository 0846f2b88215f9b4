"""What a set of rules covers of the shipped taxonomies: risks by level, techniques by tactic."""

from __future__ import annotations

from collections import Counter
from typing import Any

from detectors.base import LEVELS
from detectors.sigma import Rule, RuleSet
from monitor.authoring.taxonomy import Taxonomy, taxonomy

GRAVEST_FIRST = tuple(reversed(LEVELS))


def coverage(rules: RuleSet) -> dict[str, Any]:
    """Counts of reporting rules as plain data: ``owasp_agentic`` has a row for each risk with its
    rules by level, ``atlas`` an entry for each tactic with its techniques. Dormant rules are counted
    apart, as ``dormant``: they cover nothing yet.
    """
    reporting = [rule for rule in rules.rules if rule.generate]
    return {
        "rules": len(reporting),
        "levels": list(GRAVEST_FIRST),
        "owasp_agentic": _risks(taxonomy("owasp-asi"), reporting),
        "atlas": _tactics(taxonomy("atlas"), reporting),
    }


def _about(found: Taxonomy) -> dict[str, Any]:
    return {"title": found.title, "version": found.version, "date": found.date, "source": found.source}


def _ids(found: Taxonomy, rule: Rule) -> set[str]:
    return {name for tag in rule.tags if (name := found.id_of(tag.casefold())) is not None}


def _risks(found: Taxonomy, rules: list[Rule]) -> dict[str, Any]:
    rows = []
    for name, entry in found.entries.items():
        tagged = [rule for rule in rules if name in _ids(found, rule)]
        awake = [rule for rule in tagged if not rule.missing]
        counted = Counter(rule.level for rule in awake)
        rows.append(
            {
                "id": name.upper(),
                "name": entry.name,
                "levels": {level: counted[level] for level in GRAVEST_FIRST},
                "rules": len(awake),
                "dormant": len(tagged) - len(awake),
            }
        )
    return {**_about(found), "rows": rows, "holes": [row["id"] for row in rows if not row["rules"]]}


def _tactics(found: Taxonomy, rules: list[Rule]) -> dict[str, Any]:
    awake: Counter[str] = Counter()
    dormant: Counter[str] = Counter()
    for rule in rules:
        # A sub-technique covers its technique too; one rule counts once for it.
        (dormant if rule.missing else awake).update({name.partition(".")[0] for name in _ids(found, rule)})
    techniques = {name: entry for name, entry in found.entries.items() if "." not in name}
    columns: list[dict[str, Any]] = []
    for tactic, title in found.tactics.items():
        below = {name: entry.name for name, entry in techniques.items() if tactic in entry.tactics}
        cells = [
            {"id": _shown(name), "name": called, "rules": awake[name], "dormant": dormant[name]}
            for name, called in below.items()
        ]
        columns.append(
            {
                "id": _shown(tactic),
                "name": title,
                "techniques": cells,
                "covered": sum(awake[name] > 0 for name in below),
            }
        )
    holes = [column["id"] for column in columns if not column["covered"]]
    return {**_about(found), "tactics": columns, "holes": holes}


def _shown(name: str) -> str:
    """``aml-t0051`` as ATLAS writes it: ``AML.T0051``."""
    return name.upper().replace("-", ".", 1)
