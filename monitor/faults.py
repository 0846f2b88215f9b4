"""The faults that a user can mend: shown as one line, without a traceback."""

from __future__ import annotations

from detectors.sigma import RuleError
from monitor.child import DaemonFailed
from monitor.client import Unreachable
from monitor.runtime import DaemonRunning
from monitor.settings import SettingsError
from monitor.sources.spool import SpoolError
from monitor.store.clickhouse import StoreError
from monitor.store.migrate import MigrationError

EXPECTED = (
    RuleError,
    Unreachable,
    DaemonRunning,
    DaemonFailed,
    SettingsError,
    SpoolError,
    StoreError,
    MigrationError,
    OSError,
)
