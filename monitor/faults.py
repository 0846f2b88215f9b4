"""The faults that a user can mend: shown as one line, without a traceback."""

from __future__ import annotations

EXPECTED = frozenset(
    {
        "detectors.sigma.rule.RuleError",
        "monitor.authoring.explaining.UnknownEventError",
        "monitor.authoring.naming.UnknownRuleError",
        "monitor.child.DaemonFailed",
        "monitor.client.Unreachable",
        "monitor.runtime.DaemonRunning",
        "monitor.settings.SettingsError",
        "monitor.sources.dialect_files.DialectError",
        "monitor.sources.follow.place.FollowedElsewhere",
        "monitor.sources.segment.SpoolError",
        "monitor.store.fault.StoreError",
        "monitor.store.migrate.MigrationError",
        "builtins.OSError",
    }
)
"""Named, not imported: whatever was raised is loaded, and the rest would cost a second."""


def expected(error: Exception) -> bool:
    """Whether the fault, or what it is a kind of, is one of these."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in EXPECTED for kind in type(error).__mro__)
