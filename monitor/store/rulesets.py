"""Rule sets that are or were in force, by hash: a spool is judged again by the rules of its time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy import func, select

from detectors.sigma import RuleSet
from detectors.sigma.load import load_texts
from monitor.durable import write_whole
from monitor.events import rule_fields
from monitor.store.state import Control, State

KEPT = 50
"""Rule sets that are kept; the spool reaches back no further than a few of them."""


class Archived(msgspec.Struct):
    """What makes a rule set: its documents (path, text), the site's lists, and the pipelines' texts."""

    documents: list[tuple[str, str]]
    lists: dict[str, list[str | int | float]]
    pipelines: list[str]


class Known:
    """The rules in force as a process knows that does not read the spool: by the last record of them.

    ``told`` hears each rule set, the first at once.
    """

    def __init__(
        self, state: State, rule_sets: RuleSets, rules_hash: str, told: Callable[[RuleSet], None]
    ) -> None:
        self._state = state
        self._rule_sets = rule_sets
        self._told = told
        with state.read() as session:
            self._latest = session.scalar(_LATEST) or 0
        told(rule_sets.get(rules_hash))

    def look(self) -> None:
        """See whether others have come into force. Raises what ``RuleSets.get`` does."""
        with self._state.read() as session:
            latest = session.scalar(_LATEST) or 0
            record = session.get(Control, latest) if latest > self._latest else None
        if record is not None:
            self._told(self._rule_sets.get(record.payload["hash"]))
            self._latest = latest


_LATEST = select(func.max(Control.id)).where(Control.kind == "rules")


class RuleSets:
    """Rule sets in a folder, one file each, never changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, rules: RuleSet) -> None:
        """Keep the rules, durably, before anything refers to them. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(rules.hash)
        if path.exists():  # nothing to write: a disk that is full stops no start
            os.utime(path)
            return
        archived = Archived(
            [(one.path, one.text) for one in rules.documents],
            {name: list(values) for name, values in rules.site.lists.items()},
            list(rules.site.mapping.version),
        )
        write_whole(path, msgspec.json.encode(archived))
        for old in sorted(self.folder.glob("*.json"), key=lambda one: one.stat().st_mtime)[:-KEPT]:
            old.unlink()

    def get(self, name: str) -> RuleSet:
        """The rules with this hash.

        Raises OSError where they are not there, ValueError (RuleError) where they cannot be read.
        """
        archived = msgspec.json.decode(self._path(name).read_bytes(), type=Archived)
        rules = load_texts(archived.documents, rule_fields(), archived.lists, archived.pipelines)
        if rules.hash != name:
            raise ValueError(f"the rules kept as {name} are read as {rules.hash} by this version")
        return rules

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
