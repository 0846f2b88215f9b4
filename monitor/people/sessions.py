"""One-time links and signed-in browsers.

Tokens are 256 random bits and only their SHA-256 is kept, so a copy of the state database
signs nobody in.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from sqlalchemy.orm import Session

from monitor.people.accounts import AccountError
from monitor.people.trail import entry
from monitor.store.state import LoginLink, Person, State, WebSession, now

SESSION_LIFE = timedelta(hours=12)
LINK_LIFE = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_login_link(state: State, user: str, ttl: timedelta = LINK_LIFE) -> str:
    """A token for ``/login?token=…`` that signs ``user`` in once, within ``ttl``.

    Raises AccountError where nobody in force is called so.
    """
    token = secrets.token_urlsafe(32)
    moment = now()
    with state.write() as session:
        person = session.get(Person, user)
        if person is None or person.disabled_at is not None:
            raise AccountError(f"nobody in force is called {user}; `watchkeeper people list` shows everybody")
        session.add(
            LoginLink(
                token_hash=digest(token),
                user=user,
                created_at=moment,
                expires_at=moment + ttl // MICROSECOND,
                used_at=None,
            )
        )
    return token


def begin_session(session: Session, person: Person, way: str, address: str | None) -> str:
    """A browser signs in, by a ``way`` that the trail names: the cookie's value."""
    cookie = secrets.token_urlsafe(32)
    moment = now()
    session.add(
        WebSession(
            token_hash=digest(cookie),
            user=person.name,
            csrf=secrets.token_urlsafe(32),
            created_at=moment,
            expires_at=moment + SESSION_LIFE // MICROSECOND,
        )
    )
    told = entry(
        person.name, "sign_in", f"person:{person.name}", role=person.role, address=address, detail={"by": way}
    )
    session.add(told)
    return cookie


def redeem(state: State, token: str, address: str | None) -> str | None:
    """Use a link up and begin a session: the cookie's value, or None where the link is no good."""
    moment = now()
    with state.write() as session:
        link = session.get(LoginLink, digest(token))
        if link is None or link.used_at is not None or link.expires_at <= moment:
            return None
        link.used_at = moment
        person = session.get(Person, link.user)
        if person is None or person.disabled_at is not None:
            return None
        return begin_session(session, person, "one-time link", address)


def signed_in_as(state: State, cookie: str) -> tuple[WebSession, Person] | None:
    """The session and the person behind a cookie, while both are in force."""
    with state.read() as session:
        found = session.get(WebSession, digest(cookie))
        if found is None or found.expires_at <= now():
            return None
        person = session.get(Person, found.user)
    return None if person is None or person.disabled_at is not None else (found, person)


def end_session(state: State, cookie: str) -> None:
    """Forget a session."""
    with state.write() as session:
        found = session.get(WebSession, digest(cookie))
        if found is not None:
            session.add(entry(found.user, "sign_out", f"person:{found.user}"))
            session.delete(found)
