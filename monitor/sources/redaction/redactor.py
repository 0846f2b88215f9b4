"""Which policy holds for which source and column, and everything that must pass it."""

from __future__ import annotations

from collections import OrderedDict
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from monitor.events import COLUMNS, RESERVED, Kind
from monitor.settings import RedactionPolicy, RedactionSettings
from monitor.sources.redaction.kinds import KINDS
from monitor.sources.redaction.scrubber import OwnPattern, Scrubber
from monitor.sources.redaction.values import fingerprint, load_key, masked

REMEMBERED = 4_096
"""Senders and agents whose policies are remembered; the least recent give way."""

NAMES = frozenset(
    {"event_id", "tenant", "agent_id", "delegated_by", "source", "session_id", "task_id", "correlation_id"}
    | {"span_id", "parent_span_id", "tool_call_id", "approval_id"}
)
"""Redacted only where a policy names them: a mask in their place would make many things one."""

_TEXTS = tuple(c.name for c in COLUMNS if c.kind in (Kind.STRING, Kind.LABEL))
_ATTRIBUTES = "attributes"

Plan = tuple[list[tuple[str, Scrubber]], list[tuple[RedactionPolicy, Scrubber]]]
"""Columns with what scrubs them, and the policies that hold for attributes."""


class Redactor:
    """Redacts records and raw bytes by the site's policies; the first that matches a column holds.

    Raises OSError where the key of fingerprints can be neither read nor made.
    """

    def __init__(self, settings: RedactionSettings, key_file: Path) -> None:
        prints = any(policy.mode == "fingerprint" for policy in settings.policies)
        key = load_key(settings.key_file or key_file) if prints else b""
        self._policies = [(policy, self._scrubber(policy, settings, key)) for policy in settings.policies]
        self._plans: OrderedDict[tuple[str, str], Plan] = OrderedDict()

    def _scrubber(self, policy: RedactionPolicy, settings: RedactionSettings, key: bytes) -> Scrubber:
        wanted = set(policy.detectors)
        kinds = [kind for kind in KINDS if kind.name in wanted or kind.group in wanted]
        own = [OwnPattern(name, text) for name, text in settings.patterns.items() if name in wanted]
        if policy.mode == "mask":
            return Scrubber(kinds, own, lambda kind, _value: masked(kind))
        return Scrubber(kinds, own, partial(fingerprint, key))

    def record(self, record: Any, source: str) -> None:
        """Redact a record of the key named ``source``, in place. It must not have been cut before."""
        columns, attributes = self._plan(source, record.agent_id)
        for name, scrubber in columns:
            value = getattr(record, name)
            if value is not None:
                setattr(record, name, self._column(name, value, scrubber))
        if record.attributes and attributes:
            record.attributes = dict(self._attribute(n, v, attributes) for n, v in record.attributes.items())

    def _column(self, name: str, value: Any, scrubber: Scrubber) -> Any:
        if isinstance(value, list):
            return [scrubber.text(item) for item in value]
        return scrubber.walk(value, key=name)

    def _attribute(
        self, name: str, value: Any, policies: list[tuple[RedactionPolicy, Scrubber]]
    ) -> tuple[str, Any]:
        if name.startswith(RESERVED):
            return name, value
        for policy, scrubber in policies:
            if _covers(policy, f"{_ATTRIBUTES}.{name}"):
                return scrubber.plain(name), scrubber.walk(value, key=name)
        return name, value

    def _plan(self, source: str, agent_id: str) -> Plan:
        place = (source, agent_id)
        plan = self._plans.get(place)
        if plan is None:
            holding = [
                (policy, scrubber)
                for policy, scrubber in self._policies
                if _any(policy.sources, source) and _any(policy.agents, agent_id)
            ]
            columns = []
            for name in (*_TEXTS, "data_accessed"):
                scrubber = next((one for policy, one in holding if _covers(policy, name)), None)
                if scrubber is not None:
                    columns.append((name, scrubber))
            plan = self._plans[place] = columns, holding
            if len(self._plans) > REMEMBERED:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(place)
        return plan

    def raw(self, raw: bytes | None, source: str) -> bytes | None:
        """What a dead letter may keep of refused bytes: scrubbed text, nothing of what is no text.

        Agent and column are not known, so every policy that may hold for the source holds.
        """
        scrubbers = [scrubber for policy, scrubber in self._policies if _any(policy.sources, source)]
        if raw is None or not scrubbers:
            return raw
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return None
        try:
            msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            # Half a record may hide a value behind escapes that can no longer be undone.
            if "\\u" in text:
                return None
        for scrubber in scrubbers:
            text = scrubber.text(text)
        return text.encode()

    def reason(self, reason: str, source: str) -> str:
        """Why something was refused, which may quote it."""
        for policy, scrubber in self._policies:
            if _any(policy.sources, source):
                reason = scrubber.plain(reason)
        return reason


def _any(patterns: list[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _covers(policy: RedactionPolicy, column: str) -> bool:
    if column in NAMES:
        return column in policy.columns
    return _any(policy.columns, column)
