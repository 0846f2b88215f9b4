"""The table of scheduled jobs. Jobs are short, and a missed run is caught up once."""

from __future__ import annotations

from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import delete, or_

from monitor.store.state import LoginLink, State, WebSession, now


def forget_expired_logins(state: State) -> None:
    """Remove used and expired login links and expired browser sessions."""
    moment = now()
    with state.write() as session:
        session.execute(
            delete(LoginLink).where(or_(LoginLink.expires_at < moment, LoginLink.used_at.is_not(None)))
        )
        session.execute(delete(WebSession).where(WebSession.expires_at < moment))


def start_scheduler(state: State) -> BackgroundScheduler:
    """Start the jobs, on threads of their own.

    The defaults of APScheduler 3 drop a run that is a second late; here none is dropped.
    """
    scheduler = BackgroundScheduler(
        timezone="UTC", job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
    )
    scheduler.add_job(forget_expired_logins, "interval", minutes=10, args=[state], id="forget-expired-logins")
    scheduler.start()
    return scheduler
