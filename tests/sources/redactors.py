"""Redactors for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monitor.settings import RedactionPolicy, RedactionSettings
from monitor.sources.keys import Sender
from monitor.sources.redaction.redactor import Redactor
from tests.builders import event

SENDER = Sender("key_1", "default", scopes=frozenset({"ingest"}), name="fleet")


def redactor(folder: Path, *policies: dict[str, Any], **patterns: str) -> Redactor:
    """A redactor with these policies, or one that masks whatever it knows, and its key in the folder."""
    given = policies or ({"detectors": ["secrets", "personal", "network"]},)
    settings = RedactionSettings(policies=[RedactionPolicy(**one) for one in given], patterns=patterns)
    return Redactor(settings, folder / "redaction.key")


def redacted(made: Redactor, **columns: Any) -> Any:
    """An event with these columns, redacted."""
    record = event(**columns)
    made.record(record, SENDER, 65_536)
    return record
