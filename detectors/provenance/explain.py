"""What a finding about a call says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectors.calibration import Standing
from detectors.provenance.calls import Call, Traced, contexts
from detectors.provenance.profile import Profile, Weighed
from detectors.provenance.sources import PROSE, REQUEST, RESULT
from detectors.sessions import Who
from detectors.wording import number, one_in, plain, times


def explained(
    profile: Profile, who: Who, call: Call, texts: Sequence[str], weighed: Weighed, standing: Standing
) -> tuple[str, dict[str, Any]]:
    """The reason in one sentence, and the evidence; ``texts`` are those of the call's values."""
    place = (weighed.new or weighed.way)[1]
    one = call.values[place]
    came, total = profile.ways.seen(contexts(who, call.tool, one.argument, one.kind)[-1], one.way)
    usual = "none yet" if standing.usual is None else f"{number(standing.usual)} bits"
    reason = (
        f"{plain(call.tool)} {plain(one.argument)} “{plain(texts[place])}” comes from {_said(one)}: "
        f"seen {times(came)} in {total:,} such values"
        f"{', never used there before' if weighed.new else ''}"
        f"{'' if call.asked else '; nothing of the call stands in the request'}"
        f"{'' if call.named else '; the request does not speak of it'}; "
        f"{number(weighed.score)} bits, this agent's usual worst call is {usual}; "
        f"{one_in(standing.p_value)} sessions of this {standing.pool}"
    )
    parts = [part for part in (weighed.way, weighed.new) if part is not None]
    return reason, {
        "observed": {
            "tool": plain(call.tool),
            "values": [_shown(call.values[at], texts[at], bits) for bits, at in parts],
            "in_request": call.asked,
            "tool_in_request": call.named,
            "bits": round(weighed.score, 2),
        },
        "expected": {
            "bits": None if standing.usual is None else round(standing.usual, 2),
            "seen": total,
            "from_there": came,
        },
        "p_value": standing.p_value,
        "bits": round(weighed.score, 3),
        "profile": standing.profile(),
    }


def _said(one: Traced) -> str:
    if one.origin == RESULT:
        return f"{'the text of a' if one.form == PROSE else 'a'} result of {plain(one.source)}"
    return "the request" if one.origin == REQUEST else "neither the request nor any result"


def _shown(one: Traced, text: str, bits: float) -> dict[str, Any]:
    return {
        "argument": plain(one.argument),
        "value": plain(text),
        "kind": one.kind,
        "origin": one.origin,
        "source_tool": plain(one.source) or None,
        "form": one.form or None,
        "new": bool(one.used) and not one.known,
        "bits": round(bits, 2),
    }
