"""What people and programs do with incidents: one transaction, and a line in the audit trail."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from monitor.alerting.incidents import (
    IncidentDesk,
    IncidentError,
    NoSuchIncidentError,
    StaleIncidentError,
)
from monitor.store.state import Incident
from monitor.web.auth import Caller
from monitor.web.context import Console
from monitor.web.problems import Problem

Act = Callable[[IncidentDesk, Session], Incident]


def act(
    console: Console, caller: Caller, name: str, do: Act, reason: str = "", about: str | None = None
) -> Incident:
    """The incident that ``do`` gives. ``about`` is the one that must be the caller's to see.

    Raises Problem: 404 for an incident that is not there, 412 where somebody was faster, 409 otherwise.
    """
    try:
        with console.state.write() as session:
            if about is not None:
                visible(session, about, caller)
            incident = do(IncidentDesk(console.alert_desk), session)
            session.add(caller.act(f"incident.{name}", f"incident:{about or incident.id}", reason))
    except NoSuchIncidentError as error:
        raise Problem(404, f"{error}; the list shows those there are") from None
    except StaleIncidentError as error:
        raise Problem(412, str(error)) from None
    except IncidentError as error:
        raise Problem(409, str(error)) from None
    console.alert_desk.wake()
    return incident


def visible(session: Session, incident_id: str, caller: Caller) -> Incident:
    """The incident, where the caller's tenant may see it. Raises Problem 404."""
    found = session.get(Incident, incident_id)
    if found is None or caller.tenant not in (None, found.tenant):
        raise Problem(404, "there is no such incident; the list shows those there are")
    return found
