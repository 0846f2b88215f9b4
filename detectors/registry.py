"""Every learning detector, with its share of the budget."""

from __future__ import annotations

from detectors.base import Detector


def learners(false_alerts_per_1000_sessions: float) -> list[Detector]:
    """New instances of all learning detectors."""
    return []
