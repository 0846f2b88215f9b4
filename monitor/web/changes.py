"""Changing alerts, one or many, with a check that nobody else was faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monitor.alerting.alerts import AlertError
from monitor.store.state import Alert, AuditEntry
from monitor.web.auth import Caller
from monitor.web.context import Console

MOST_AT_ONCE = 200


@dataclass(frozen=True)
class Wanted:
    """What somebody wants of an alert; None leaves a field as it is."""

    status: str | None = None
    verdict: str | None = None
    owner: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Target:
    """An alert as the reader saw it; ``version`` None changes it whatever it is now."""

    alert_id: str
    version: int | None

    @classmethod
    def parse(cls, text: str) -> Target:
        """From ``ID@VERSION``. Raises ValueError."""
        alert_id, _, version = text.rpartition("@")
        if not alert_id:
            raise ValueError("name an alert as ID@VERSION")
        return cls(alert_id, int(version))


@dataclass(frozen=True)
class Outcome:
    """The alerts that were changed, as they are now, and why others were not."""

    changed: tuple[Alert, ...]
    refused: tuple[str, ...]


def change_act(caller: Caller, alert_id: str, wanted: Wanted) -> AuditEntry:
    """What the audit trail keeps of a change."""
    detail = {"status": wanted.status, "verdict": wanted.verdict, "owner": wanted.owner}
    given = {name: value for name, value in detail.items() if value is not None}
    return caller.act("alert.change", f"alert:{alert_id}", wanted.reason, given)


def change_all(console: Console, caller: Caller, targets: Sequence[Target], wanted: Wanted) -> Outcome:
    """Change each alert in a transaction of its own, so that one refusal leaves the others."""
    changed, refused = [], []
    for target in targets:
        try:
            with console.state.write() as session:
                alert = console.alert_desk.change(
                    session,
                    target.alert_id,
                    caller.actor,
                    status=wanted.status,
                    verdict=wanted.verdict,
                    owner=wanted.owner,
                    reason=wanted.reason,
                    expected_version=target.version,
                )
                session.add(change_act(caller, target.alert_id, wanted))
            changed.append(alert)
        except AlertError as error:
            refused.append(str(error))
    if changed:
        console.alert_desk.wake()
    return Outcome(tuple(changed), tuple(refused))
