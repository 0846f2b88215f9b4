"""Other rules for a running daemon: all of them or none, and recorded before anybody judges by them.

The supervisor reads and checks them, keeps them (`RuleSets`), and hands their hash to the spool by
way of the state database. Detection judges by them from that record on, however often it is replayed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectors.sigma import RuleError, RuleSet
from monitor.alerting.alerts import AlertDesk
from monitor.alerting.own import own_finding
from monitor.client import Unreachable
from monitor.rulebook import load
from monitor.runtime import read_runtime
from monitor.settings import Settings, SettingsError
from monitor.store.rulesets import RuleSets
from monitor.store.state import Control, Process, State, now
from monitor.telemetry import logger

LOOK_SECONDS = 1.0

REFUSED = "rules-refused"
REFUSED_TITLE = "New rules are not in force"

Look = frozenset[tuple[str, int, int]]
"""Files with the time and the size that they have."""


class Reloading:
    """Takes rules and lists anew when it is told to, or when a file has changed.

    ``reread`` gives the settings as their file has them now; of these only the rules, the lists and
    the pipelines are taken. ``taken`` hears the hash of rules that come into force.
    """

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        rules_hash: str,
        taken: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._reread = reread
        self._taken = taken
        self._hash = rules_hash
        self._seen = self._settled = look(settings)
        self._looked = time.monotonic()

    def changed(self) -> bool:
        """Whether files have changed since they were last taken and have rested since the last look."""
        if not self._settings.detection.watch_rules or time.monotonic() - self._looked < LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        before, self._settled = self._settled, look(self._settings)
        return self._settled == before != self._seen

    def reload(self) -> None:
        """Put the rules into force, or keep those that are and say why."""
        self._seen = look(self._settings)
        try:
            rules = load(self._reread())
        except (RuleError, SettingsError) as error:
            self._refuse(str(error))
            return
        if rules.hash == self._hash:
            logger().info("the rules are as they were", rules=rules.hash)
            return
        try:
            RuleSets(self._settings.rule_sets_folder).put(rules)
            self._record(rules)
        except OSError as error:
            self._refuse(f"they cannot be kept: {error.strerror or error}")
            return
        self._hash = rules.hash
        self._taken(rules.hash)
        logger().info("new rules", rules=rules.hash, count=len(rules.rules))

    def _record(self, rules: RuleSet) -> None:
        state = State(self._settings.state_file)
        try:
            with state.write() as session:
                payload = {"hash": rules.hash, "rules": len(rules.rules)}
                session.add(Control(kind="rules", payload=payload, actor="reload", created_at=now()))
        finally:
            state.close()

    def _refuse(self, why: str) -> None:
        logger().error("the rules stay as they were", why=why[:2000])
        state = State(self._settings.state_file)
        try:
            desk = AlertDesk(state, {}, self._settings)
            reason = f"the rules in force stay {self._hash}; {why}"
            with state.write() as session:
                desk.file(session, [own_finding(REFUSED, REFUSED_TITLE, reason, "high")])
        finally:
            state.close()


def look(settings: Settings) -> Look:
    """What the files of rules and pipelines are like now."""
    found: list[Path] = []
    for path in (*settings.detection.rules, *settings.detection.pipelines):
        found += sorted(path.rglob("*.yml")) if path.is_dir() else [path]
    return frozenset(_looks(path) for path in found)


def _looks(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), stat.st_mtime_ns, stat.st_size


ASK_SECONDS = 30.0


def ask(settings: Settings) -> dict[str, Any]:
    """Have the daemon of these settings reload, and wait until detection judges by what they say.

    How many ``rules`` are in force, and whether that ``changed``. Raises RuleError where the rules
    cannot be used, Unreachable where no daemon is there, TimeoutError where it does not follow.
    """
    rules = load(settings)
    runtime = read_runtime(settings.data)
    if runtime is None:
        raise Unreachable(f"no daemon runs on {settings.data}; start one with `watchkeeper serve`")
    state = State(settings.state_file)
    try:
        before = _judged_by(state)
        os.kill(runtime.pid, signal.SIGHUP)
        deadline = time.monotonic() + ASK_SECONDS
        while _judged_by(state) != rules.hash:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"detection does not judge by them after {ASK_SECONDS:.0f} s; look at the daemon's log"
                )
            time.sleep(0.1)
        return {"rules": len(rules.rules), "hash": rules.hash, "changed": before != rules.hash}
    finally:
        state.close()


def _judged_by(state: State) -> str | None:
    with state.read() as session:
        process = session.get(Process, "detection")
        return process.detail.get("rules") if process is not None else None
