"""The alert desk: files findings as alerts, and changes alerts as people decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from detectors.base import Finding
from monitor.alerting import deliveries, quiet
from monitor.alerting.gathering import Gathering, settle
from monitor.alerting.kinds import KINDS
from monitor.alerting.merging import dedup_key, join, opened, rank
from monitor.alerting.own import AGENT, PREFIX
from monitor.alerting.silences import SUPPRESSED, in_force, silencing
from monitor.alerting.words import STATUSES, TRANSITIONS, VERDICTS
from monitor.settings import Settings
from monitor.store.state import Alert, AlertChange, AlertFinding, Control, IncidentEntry, State, now

MAX_REASON = 2_000
MAX_NAME = 200
BOUND_AT_ONCE = 500
"""Ids in one query."""


class AlertError(Exception):
    """The alert cannot be changed as asked; the message says why and what would do."""


class NoSuchAlertError(AlertError):
    """There is no alert with this id."""


class StaleAlertError(AlertError):
    """Somebody else has changed the alert since it was read."""


class RuleInfo(Protocol):
    """What an alert takes over from its rule."""

    @property
    def runbook(self) -> Sequence[str]:
        """Steps for whoever handles the alert."""
        ...


class AlertDesk:
    """Files and changes alerts, always inside a write transaction of the caller's."""

    def __init__(self, state: State, rules: Mapping[str, RuleInfo], settings: Settings) -> None:
        self.state = state
        self.rules = rules
        self._posts = settings.slack.token is not None
        self._draws = settings.slack.pictures
        self._least = rank(settings.slack.min_level)
        self._quiet = settings.own_alerts
        self._wakers: list[Callable[[], None]] = []

    def on_wake(self, waker: Callable[[], None]) -> None:
        """Have ``waker`` called after each commit that may have left messages to send."""
        self._wakers.append(waker)

    def wake(self) -> None:
        """Tell whoever sends messages to look now. Call it after the commit, never inside it."""
        for waker in self._wakers:
            waker()

    def file(self, session: Session, findings: Sequence[Finding]) -> list[Alert]:
        """File findings; the alerts that are new or whose level rose, in the order of the findings.

        A finding whose id is already known changes nothing, so filing may be repeated.
        """
        # written together at the end: one by one, a storm of new alerts takes twice as long
        with session.no_autoflush:
            rows, loud = self._sort_in(session, _unknown(session, findings), now())
            session.flush()
            session.add_all(rows)
            for alert in loud:
                if self._speaks_of(session, alert):
                    deliveries.announce(session, alert)
                    if self._draws and alert.detector != AGENT:
                        deliveries.picture(session, alert)
        return loud

    def _speaks_of(self, session: Session, alert: Alert) -> bool:
        if not self._posts or alert.replayed or alert.status == SUPPRESSED or rank(alert.level) < self._least:
            return False
        return quiet.may_announce(session, alert, self._quiet, now())

    def _sort_in(
        self, session: Session, findings: Sequence[Finding], at: int
    ) -> tuple[list[AlertFinding | AlertChange | IncidentEntry], list[Alert]]:
        """Open or join an alert for each; the rows that refer to them, and the alerts to speak of."""
        rows: list[AlertFinding | AlertChange | IncidentEntry] = []
        loud: dict[str, Alert] = {}
        latest: dict[str, Alert | None] = {}
        silences = in_force(session, at) if findings else ()
        gathering = Gathering(session, at)
        for finding in findings:
            key = dedup_key(finding)
            alert = latest[key] if key in latest else _latest(session, key)
            if alert is None or alert.status == "closed":
                previous, alert = alert, opened(finding, key, self._runbook(finding), alert, at)
                session.add(alert)
                loud[alert.id] = alert
                if (silence := silencing(silences, finding)) is not None:
                    rows.append(_set_status(alert, SUPPRESSED, f"silence:{silence.id}", silence.reason, at))
                gathering.place(alert, previous)
            else:
                join(alert, finding, at)
                if alert.status == SUPPRESSED and silencing(silences, finding) is None:
                    rows.append(_set_status(alert, "new", "watchkeeper", "the silence has ended", at))
                    gathering.place(alert)
                    loud[alert.id] = alert
                if rank(finding.level) > rank(alert.level):
                    rows.append(self._raise_level(session, alert, finding, at))
                    loud[alert.id] = alert
                gathering.renew(alert)
            latest[key] = alert
            rows.append(
                AlertFinding(
                    finding_id=finding.finding_id,
                    alert_id=alert.id,
                    at=finding.timestamp,
                    reason=finding.reason,
                    event_ids=list(finding.event_ids),
                )
            )
        return [*rows, *gathering.entries], list(loud.values())

    def _runbook(self, finding: Finding) -> Sequence[str]:
        rule = self.rules.get(finding.rule_id) or KINDS.get(finding.rule_id.removeprefix(PREFIX))
        return rule.runbook if rule is not None else ()

    def _raise_level(self, session: Session, alert: Alert, finding: Finding, at: int) -> AlertChange:
        old = alert.level
        alert.level, alert.title, alert.reason = finding.level, finding.title, finding.reason
        alert.version += 1
        if deliveries.announced(session, alert):
            deliveries.update(session, alert, f"level: {old} → {finding.level}. {finding.reason}")
        return _change(alert, "watchkeeper", "level", old, finding.level, finding.reason, at)

    def change(
        self,
        session: Session,
        alert_id: str,
        actor: str,
        *,
        status: str | None = None,
        verdict: str | None = None,
        owner: str | None = None,
        reason: str,
        expected_version: int | None = None,
    ) -> Alert:
        """Change an alert for ``actor``; None leaves a field as it is, an empty owner clears it.

        Closing needs a verdict, now or before, and a verdict needs a reason; it may be
        corrected after closing. Each changed field is a row of history. Raises AlertError,
        NoSuchAlertError or StaleAlertError, and then nothing has been changed.
        """
        alert = session.get(Alert, alert_id)
        if alert is None:
            raise NoSuchAlertError(f"there is no alert {alert_id[:MAX_NAME]!r}")
        if expected_version is not None and expected_version != alert.version:
            raise StaleAlertError(
                f"alert {alert.id} is at version {alert.version} now, not {expected_version}; look again"
            )
        _check_words(actor, owner, reason)
        wanted = _wanted(alert, status, verdict, owner, reason)
        at = now()
        rows = [
            _change(alert, actor, name, getattr(alert, name), value, reason, at)
            for name, value in wanted.items()
        ]
        for name, value in wanted.items():
            setattr(alert, name, value)
        alert.version += 1
        alert.updated_at = at
        session.add_all(rows)
        settle(session, alert, actor, at)
        if verdict is not None and "verdict" in wanted:
            session.add(_verdict(alert, verdict, actor, at))
        if deliveries.announced(session, alert):
            told = ", ".join(f"{row.field}: {row.old or 'none'} → {row.new or 'none'}" for row in rows)
            deliveries.update(session, alert, f"{told} by {actor}" + (f": {reason}" if reason else ""))
        return alert


def _unknown(session: Session, findings: Sequence[Finding]) -> list[Finding]:
    """Each finding once, without those that some alert already holds."""
    fresh: dict[str, Finding] = {}
    for finding in findings:
        fresh.setdefault(finding.finding_id, finding)
    ids = list(fresh)
    for start in range(0, len(ids), BOUND_AT_ONCE):
        some = ids[start : start + BOUND_AT_ONCE]
        for known in session.scalars(
            select(AlertFinding.finding_id).where(AlertFinding.finding_id.in_(some))
        ):
            del fresh[known]
    return list(fresh.values())


def _latest(session: Session, key: str) -> Alert | None:
    query = select(Alert).where(Alert.dedup_key == key)
    return session.scalars(query.order_by(Alert.status == "closed", Alert.created_at.desc()).limit(1)).first()


def _set_status(alert: Alert, status: str, actor: str, reason: str, at: int) -> AlertChange:
    old, alert.status = alert.status, status
    alert.version += 1
    return _change(alert, actor, "status", old, status, reason, at)


def _change(
    alert: Alert, actor: str, field: str, old: str | None, new: str | None, reason: str, at: int
) -> AlertChange:
    return AlertChange(alert_id=alert.id, at=at, actor=actor, field=field, old=old, new=new, reason=reason)


def _verdict(alert: Alert, verdict: str, actor: str, at: int) -> Control:
    payload = {
        "alert_id": alert.id,
        "rule_id": alert.rule_id,
        "tenant": alert.tenant,
        "agent_id": alert.agent_id,
        "session_id": alert.session_id,
        "verdict": verdict,
    }
    return Control(kind="verdict", payload=payload, actor=actor, created_at=at)


def _check_words(actor: str, owner: str | None, reason: str) -> None:
    if not actor or len(actor) > MAX_NAME or len(owner or "") > MAX_NAME:
        raise AlertError(f"a person's name has 1 to {MAX_NAME} characters")
    if len(reason) > MAX_REASON:
        raise AlertError(f"a reason has at most {MAX_REASON} characters")


def _wanted(
    alert: Alert, status: str | None, verdict: str | None, owner: str | None, reason: str
) -> dict[str, str | None]:
    """The fields that really change, checked against the words of triage."""
    if status is not None and status not in STATUSES:
        raise AlertError(f"{status[:MAX_NAME]!r} is no status; use one of {', '.join(STATUSES)}")
    if verdict is not None and verdict not in VERDICTS:
        raise AlertError(f"{verdict[:MAX_NAME]!r} is no verdict; use one of {', '.join(VERDICTS)}")
    if status is not None and status not in TRANSITIONS[alert.status]:
        further = (
            ", ".join(sorted(TRANSITIONS[alert.status])) or "nothing; the next finding opens a new alert"
        )
        raise AlertError(f"alert {alert.id} is {alert.status}, and from there it can become: {further}")
    if status == "closed" and verdict is None and alert.verdict is None:
        raise AlertError(f"closing alert {alert.id} needs a verdict: {', '.join(VERDICTS)}")
    if verdict is not None and not reason.strip():
        raise AlertError(f"the verdict {verdict} on alert {alert.id} needs a reason")
    asked: dict[str, str | None] = {}
    if status is not None:
        asked["status"] = status
    if verdict is not None:
        asked["verdict"] = verdict
    if owner is not None:
        asked["owner"] = owner or None
    changes = {name: value for name, value in asked.items() if getattr(alert, name) != value}
    if not changes:
        raise AlertError(f"nothing to change: alert {alert.id} already is so")
    return changes
