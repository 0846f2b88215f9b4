"""The words of triage, and which step may follow which."""

from __future__ import annotations

STATUSES = ("new", "acknowledged", "in_progress", "closed", "suppressed")

VERDICTS = {
    "true_positive": "it was what the rule looks for, and it was bad",
    "benign_positive": "it was what the rule looks for, and it was permitted",
    "false_positive": "it was not what the rule looks for",
    "duplicate": "another alert says the same",
    "test": "somebody tried out the rule or the agent",
}

TRANSITIONS: dict[str, frozenset[str]] = {
    "new": frozenset({"acknowledged", "in_progress", "closed"}),
    "acknowledged": frozenset({"new", "in_progress", "closed"}),
    "in_progress": frozenset({"new", "acknowledged", "closed"}),
    "closed": frozenset(),
    "suppressed": frozenset({"new", "acknowledged", "in_progress", "closed"}),
}
"""Steps may be skipped, and an alert may go back to the queue; a closed one stays closed. Only a
silence suppresses."""
