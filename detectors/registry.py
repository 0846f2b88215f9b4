"""The learning detectors that Watchkeeper runs."""

from __future__ import annotations

from collections.abc import Callable

from detectors.base import Detector
from detectors.calibration import Budget
from detectors.drift import Drift
from detectors.policy_blocks import PolicyBlocks
from detectors.provenance import Provenance
from detectors.session_outlier import SessionOutlier
from detectors.tool_sequence import ToolSequence

LEARNERS: dict[str, Callable[[Budget], Detector]] = {
    Provenance.name: Provenance,
    ToolSequence.name: ToolSequence,
    PolicyBlocks.name: PolicyBlocks,
    SessionOutlier.name: SessionOutlier,
    # Drift holds ADWIN's own bound; it spends nothing of the budget that the others share.
    Drift.name: lambda _: Drift(),
}
"""How each learning detector is made, by its name."""


def learners(false_alerts_per_1000_sessions: float = 5.0) -> list[Detector]:
    """All learning detectors, fresh, sharing one budget of false alerts."""
    budget = Budget(false_alerts_per_1000_sessions)
    return [make(budget) for make in LEARNERS.values()]
