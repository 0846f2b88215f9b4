"""Where judging goes on after a start, and what must be told where the spool does not reach back so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.sources.spool import MissingSegmentError, Position, next_number, segments

GAP = "spool-gap"
GAP_TITLE = "Part of the spool is gone"


@dataclass(frozen=True)
class Beginning:
    """The detectors' state and their place, as far as there are any; ``lost`` says what cannot be judged."""

    state: Mapping[str, Any] | None
    position: Position | None
    lost: str | None = None


def beginning(saved: tuple[Mapping[str, Any], Position] | None, folder: Path) -> Beginning:
    """Go on from a snapshot (state, position), or from the oldest segment where there is none.

    A spool that ends before the snapshot is not the one that the snapshot is about: what the
    detectors learned of other events is of no use, and everything that is kept is judged.
    A spool that begins after it is met by the reader, which says so (``told``).
    """
    numbers = segments(folder)
    if saved is None:
        trimmed = bool(numbers) and numbers[0] > Position().segment
        lost = f"no snapshot, and segments before {numbers[0]} are no longer kept; {_ANEW}"
        return Beginning(None, None, lost if trimmed else None)
    state, position = saved
    end = max([next_number(folder), *(number + 1 for number in numbers)])
    if position.segment > end:
        lost = f"the snapshot ends in segment {position.segment}, the spool before segment {end}; {_ANEW}"
        return Beginning(None, None, lost)
    return Beginning(state, position)


_ANEW = "the detectors begin anew with the oldest segment; see whether the data folder was mixed up"


def told(gap: MissingSegmentError, since: Position) -> str:
    """What is lost where reading jumps from ``since`` over segments that are gone."""
    last = gap.resume.segment - 1
    which = f"segment {last} is" if last == since.segment else f"segments {since.segment} to {last} are"
    return (
        f"{which} gone and what they held after byte {since.offset} of the first was not judged; judging "
        "goes on behind them. Look at what is stored of that time by hand, and find out who removed them"
    )


def told_unstored(first: int, last: int) -> str:
    """What is lost where segments are gone before they were stored."""
    which = f"segment {first} is" if first == last else f"segments {first} to {last} are"
    return (
        f"{which} gone and what they held is not in the event store; storing goes on behind them. "
        "Look for copies of them, and find out who removed them"
    )
