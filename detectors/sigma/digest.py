"""What makes a version of a rule."""

from __future__ import annotations

import hashlib
import json


def digest(document: object) -> str:
    """Hash of a rule as parsed, 12 hex digits, so that neither comments nor layout change a version."""
    plain = json.dumps(document, sort_keys=True, default=str)
    return hashlib.sha256(plain.encode()).hexdigest()[:12]
