"""The learning detectors that Watchkeeper runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial

from detectors.base import Detector
from detectors.calibration import Budget
from detectors.drift import Drift
from detectors.policy_blocks import PolicyBlocks
from detectors.provenance import READING, Provenance
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


def learners(
    false_alerts_per_1000_sessions: float = 5.0,
    reading: Iterable[str] | None = None,
    names: Collection[str] = tuple(LEARNERS),
) -> list[Detector]:
    """The learning detectors ``names``, fresh, sharing one budget of false alerts.

    ``reading`` are words that begin the names of tools which change nothing; None for the shipped ones.
    """
    verbs = READING if reading is None else frozenset(reading)
    budget = Budget(false_alerts_per_1000_sessions)
    chosen: dict[str, Callable[[Budget], Detector]] = {
        **LEARNERS,
        Provenance.name: partial(Provenance, reading=verbs),
    }
    return [make(budget) for name, make in chosen.items() if name in names]
