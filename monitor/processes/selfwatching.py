"""The watch over the watchers as a thread: reads the heartbeats, files what is wrong.

It stands apart from judging, so that it can tell when judging fails or hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from sqlalchemy import select

from monitor.alerting.alerts import AlertDesk
from monitor.alerting.recovery import failing, note_failing, note_recovered
from monitor.alerting.selfwatch import SelfWatch, Told
from monitor.alerting.signs import Sign, read_signs
from monitor.settings import Settings
from monitor.store.state import ApiKey, State, now
from monitor.telemetry import logger

LOOK_SECONDS = 1.0

MAX_UNTOLD = 100
"""Looks kept while the state database takes nothing; the oldest are what is kept."""


class SelfWatching(threading.Thread):
    """Looks once a second until ``stop``; what cannot be filed now is filed later."""

    def __init__(self, settings: Settings, state: State, alerts: AlertDesk, stop: threading.Event) -> None:
        super().__init__(name="selfwatch", daemon=True)
        self._state = state
        self._alerts = alerts
        self._ending = stop
        self._untold: list[Told] = []
        with state.read() as session:
            self._watch = SelfWatch(settings, now(), read_signs(session).get("detection"))
            self._watch.resume(failing(session))

    def run(self) -> None:
        """The loop; a fault of one look is logged and does not end it."""
        while not self._ending.wait(LOOK_SECONDS):
            try:
                self._look()
                self._tell()
            except Exception:
                logger().exception("the watch over the processes failed and will look again")

    def _look(self) -> None:
        with self._state.read() as session:
            signs = read_signs(session)
            keys = _keys(signs.values())
            revoked = select(ApiKey.id).where(ApiKey.id.in_(keys), ApiKey.revoked_at.is_not(None))
            gone = frozenset(session.scalars(revoked))
        told = self._watch.look(signs, now(), gone)
        if (told.findings or told.recovered) and len(self._untold) < MAX_UNTOLD:
            self._untold.append(told)

    def _tell(self) -> None:
        """File everything that waits, in one transaction, and only then forget it."""
        if not self._untold:
            return
        with self._state.write() as session:
            for told in self._untold:
                self._alerts.file(session, told.findings)
                note_failing(session, told.findings, now())
                note_recovered(session, told.recovered, now())
                session.flush()
        for told in self._untold:
            for finding in told.findings:
                logger().warning("own alert", kind=finding.rule_id, level=finding.level)
        self._untold.clear()
        self._alerts.wake()


def _keys(signs: Iterable[Sign]) -> list[str]:
    return [one["key"] for sign in signs for one in sign.detail.get("callers") or ()]
