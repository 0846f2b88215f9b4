"""Whether a query of a dashboard may be run at all: one SELECT, of known tables, for one tenant.

ClickHouse's ``readonly`` stops writes, but neither ``INTO OUTFILE`` nor functions that read files
and other hosts. A dashboard is written by whoever runs the site, so this guards against accidents
and copied queries; the limits of the connection come on top.
"""

from __future__ import annotations

import re

TABLES = {
    "events": frozenset({"events"}),
    "alerts": frozenset(
        {
            *("alerts", "alert_changes", "alert_findings", "incidents", "incident_entries"),
            *("orders", "order_changes", "silences", "declared_agents", "deliveries"),
        }
    ),
}
"""What a query may read, by source. Keys, people and their sessions are in no dashboard."""

TENANT = {"events": "{tenant:Nullable(String)}", "alerts": ":tenant"}
"""The parameter that keeps a tenant's key to its own rows; every query must use it."""

_LITERALS = re.compile(r"'(?:[^'\\]|\\.|'')*'")
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_NAMED = re.compile(r"([A-Za-z_]\w*)\s+AS\s+\(", re.IGNORECASE)
_READ = re.compile(r"\b(?:FROM|JOIN)\s+([`\"\w.]+)(\s*\()?", re.IGNORECASE)
_COMMA = re.compile(r"\bFROM\s+[`\"\w.]+(?:\s+(?:AS\s+)?\w+)?\s*,", re.IGNORECASE)
_REFUSED = re.compile(r"\b(INTO\s+OUTFILE|FORMAT|SETTINGS|ATTACH|PRAGMA)\b|;", re.IGNORECASE)
_REACHING = re.compile(
    r"\b(\w*file|url\w*|s3\w*|hdfs\w*|remote\w*|cluster\w*|mysql|postgresql|sqlite|odbc|jdbc|mongodb|redis|"
    r"azure\w*|gcs|iceberg\w*|delta\w*|hudi\w*|executable|python|merge|input|dictionary|dictGet\w*|catboost\w*|"
    r"load_extension|sleep\w*)\s*\(",
    re.IGNORECASE,
)
_EXTRACTED = re.compile(r"\b(?:EXTRACT|TRIM|SUBSTRING|OVERLAY)\s*\([^()]*\)", re.IGNORECASE)


def fault_of(source: str, query: str) -> str | None:
    """Why this query is refused; None where it may be run."""
    bare = _COMMENTS.sub(" ", _LITERALS.sub("''", query)).strip()
    if not re.match(r"(SELECT|WITH)\b", bare, re.IGNORECASE):
        return "it must begin with SELECT or WITH"
    if refused := _REFUSED.search(bare):
        return f"{refused[0]!r} is not allowed in it"
    if reaching := _REACHING.search(bare):
        return f"the function {reaching[1]!r} is not allowed in it"
    known = {name.lower() for name in TABLES[source]} | {name.lower() for name in _NAMED.findall(bare)}
    bare = _EXTRACTED.sub("''", bare)
    if _COMMA.search(bare):
        return "it lists tables by comma; use JOIN"
    for name, call in _READ.findall(bare):
        if call or name.strip('`"').lower() not in known:
            return f"it reads {name!r}; {source} offers {', '.join(sorted(TABLES[source]))}"
    if TENANT[source] not in query:
        return f"it does not use the parameter {TENANT[source]}, which keeps tenants apart"
    return None
