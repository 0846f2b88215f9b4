"""Which policy holds for which source and column, and everything that must pass it."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from monitor.settings import RedactionPolicy, RedactionSettings
from monitor.sources.keys import Sender
from monitor.sources.redaction.columns import ATTRIBUTES, TEXTS, covers
from monitor.sources.redaction.kinds import KINDS
from monitor.sources.redaction.refused import kept
from monitor.sources.redaction.scrubber import Look, OwnPattern, Scrubber
from monitor.sources.redaction.texts import Long, Texts
from monitor.sources.redaction.values import fingerprint, keyed, load_key, masked

REMEMBERED = 4_096
"""Senders and agents whose policies are remembered; the least recent give way."""

_MADE_OF_CONTENT = re.compile(r"(otel|line)_[0-9a-f]{24,32}")
"""Ids that were made of what the event says, before it came here (otlp.py, follower.py)."""

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'…?|"(?:[^"\\]|\\.)*"…?""")


@dataclass
class Part:
    """A policy that holds for some events: its scrubber, and its columns beside attributes."""

    policy: RedactionPolicy
    scrubber: Scrubber
    columns: list[str] = field(default_factory=list)


class Redactor:
    """Redacts records and raw bytes by the site's policies; the first that matches a column holds.

    Raises OSError where the key of fingerprints can be neither read nor made.
    """

    def __init__(self, settings: RedactionSettings, key_file: Path) -> None:
        self._key = load_key(key_file)
        self._policies = [(policy, self._scrubber(policy, settings)) for policy in settings.policies]
        self._plans: OrderedDict[tuple[str, str, str], list[Part]] = OrderedDict()

    def _scrubber(self, policy: RedactionPolicy, settings: RedactionSettings) -> Scrubber:
        wanted = set(policy.detectors)
        kinds = [kind for kind in KINDS if kind.name in wanted or kind.group in wanted]
        own = [OwnPattern(name, text) for name, text in settings.patterns.items() if name in wanted]
        if policy.mode == "mask":
            return Scrubber(kinds, own, lambda kind, _value: masked(kind))
        return Scrubber(kinds, own, partial(fingerprint, self._key))

    def record(self, record: Any, sender: Sender, limit: int) -> list[Long]:
        """Redact a checked record in place, before anything of it is cut at ``limit`` bytes.

        Returns its texts beyond the limit. One that is so by more than ``texts.MARGIN`` is cut
        here: the rest would be looked through in vain.
        """
        texts = Texts(limit)
        plan = self._plan(sender.name, record.agent_id, record.source or "")
        for part in plan:
            self._columns(record, part, texts)
        if record.attributes and plan:
            record.attributes = self._attributes(record.attributes, plan, texts)
        return texts.long

    def _columns(self, record: Any, part: Part, texts: Texts) -> None:
        found = [(name, value) for name in part.columns if (value := getattr(record, name))]
        values = [text for _, value in found for text in (value if isinstance(value, list) else (value,))]
        look = texts.look(part.scrubber, values)
        if look is None:
            return
        for name, value in found:
            clean = partial(texts.clean, part.scrubber, look, name)
            setattr(
                record, name, [clean(text) for text in value] if isinstance(value, list) else clean(value)
            )

    def _attributes(self, given: dict[str, Any], plan: Sequence[Part], texts: Texts) -> dict[str, str]:
        said = {
            name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for name, value in given.items()
        }
        holding: dict[str, tuple[Scrubber, Look]] = {}
        for part, mine in self._shares(said, plan):
            look = texts.look(part.scrubber, [f"{name}={said[name]}" for name in mine])
            if look is not None:
                holding |= dict.fromkeys(mine, (part.scrubber, look))
        clean: dict[str, str] = {}
        for name, value in said.items():
            if name not in holding:
                clean[name] = value
                continue
            scrubber, look = holding[name]
            shown = scrubber.text(name[: texts.limit])
            if shown != name:
                shown = _new(shown, clean.keys() | said.keys())
            clean[shown] = texts.clean(scrubber, look, f"{ATTRIBUTES}.{shown}", value, name)
        return clean

    def _shares(self, names: Iterable[str], plan: Sequence[Part]) -> Iterator[tuple[Part, list[str]]]:
        """Each policy with the attributes that it is the first to mean."""
        left = [*names]
        for part in plan:
            mine = [name for name in left if covers(part.policy.columns, f"{ATTRIBUTES}.{name}")]
            if mine:
                left = [name for name in left if name not in set(mine)]
                yield part, mine

    def _plan(self, source: str, agent_id: str, dialect: str) -> list[Part]:
        place = (source, agent_id, dialect)
        plan = self._plans.get(place)
        if plan is not None:
            self._plans.move_to_end(place)
            return plan
        plan = [
            Part(policy, scrubber)
            for policy, scrubber in self._policies
            if _any(policy.sources, source)
            and _any(policy.agents, agent_id)
            and _any(policy.dialects, dialect)
        ]
        for name in TEXTS:
            first = next((part for part in plan if covers(part.policy.columns, name)), None)
            if first is not None:
                first.columns.append(name)
        self._plans[place] = plan
        if len(self._plans) > REMEMBERED:
            self._plans.popitem(last=False)
        return plan

    def event_id(self, given: str, sender: Sender) -> str:
        """The id to keep of an event: one that was made of its content tells nothing without the key."""
        made = _MADE_OF_CONTENT.fullmatch(given)
        if made is None or not self._scrubbers(sender):
            return given
        return f"{made[1]}-{keyed(self._key, given)}"

    def made_id(self, content: bytes) -> str:
        """The id of an event that came without one, from what it said before it was redacted."""
        return f"evt-{keyed(self._key, content.hex())}"

    def raw(self, raw: bytes | None, sender: Sender) -> bytes | None:
        """What a dead letter may keep of refused bytes; None where that cannot be told.

        Agent and column are not known, so every policy that may hold for the source holds.
        """
        for scrubber in self._scrubbers(sender):
            if raw is None:
                return None
            raw = kept(raw, sender.way, sender.content_type, scrubber.text)
        return raw

    def told(self, text: str, sender: Sender) -> str:
        """A reason, or something else that quotes what was sent; what cannot be judged is left out."""
        for scrubber in self._scrubbers(sender):
            text = scrubber.text(_QUOTED.sub(_whole, text))
        return text

    def _scrubbers(self, sender: Sender) -> list[Scrubber]:
        return [scrubber for policy, scrubber in self._policies if _any(policy.sources, sender.name)]


def _whole(match: re.Match[str]) -> str:
    # Cut or escaped, half a value would not be recognised.
    return "'…'" if match[0].endswith("…") or "\\" in match[0] else match[0]


def _new(name: str, taken: Collection[str]) -> str:
    """The name, with a number where two different ones became the same."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name} {number}"
    return found


def _any(patterns: list[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
