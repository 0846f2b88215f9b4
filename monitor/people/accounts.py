"""Accounts of people: a role, and a password, an identity at a provider, or neither.

Without either, a person signs in by one-time links that somebody with a shell on the daemon's
machine makes. Passwords are kept as Argon2id (RFC 9106).
"""

from __future__ import annotations

import re
import threading
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from monitor.people.roles import ADMIN, ROLES
from monitor.people.trail import entry
from monitor.store.state import LoginLink, Person, State, WebSession, now

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,79}")
SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 200
AT_ONCE = 2
"""Passwords that are checked at the same time; each takes 64 MiB."""

MOST_WAITING = 8
"""Passwords that wait to be checked; a flood of them must not take every thread of the console."""

_HASHER = PasswordHasher()
_ROOM = threading.BoundedSemaphore(AT_ONCE)
_QUEUE = threading.BoundedSemaphore(AT_ONCE + MOST_WAITING)
_NOBODY = _HASHER.hash("a password that nobody has")
"""Checked where there is no such person, so that the time taken says nothing about names."""


class BusyError(Exception):
    """Too many passwords are being checked; somebody may try again in a moment."""


class AccountError(ValueError):
    """Something an account cannot be; the message says what it must be."""


class People:
    """The accounts in the state database. ``by`` is who changes them, for the trail."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add(
        self, name: str, role: str, by: str, *, display_name: str = "", email: str | None = None,
        password: str | None = None, reason: str = "",
    ) -> None:  # fmt: skip
        """A new account. Raises AccountError."""
        if not NAME.fullmatch(name):
            raise AccountError(f"{name!r} is no name: up to 80 letters, digits and any of . _ @ + -")
        hashed = None if password is None else _hashed(name, password)
        with self._state.write() as session:
            if session.get(Person, name) is not None:
                raise AccountError(f"there is somebody called {name} already")
            session.add(
                Person(
                    name=name, display_name=display_name or name, email=email, role=known_role(role),
                    password_hash=hashed, issuer=None, subject=None, created_at=now(), disabled_at=None,
                )
            )  # fmt: skip
            session.add(entry(by, "person.add", f"person:{name}", reason=reason, detail={"role": role}))

    def change_role(self, name: str, role: str, by: str, reason: str = "") -> None:
        """Other rights, from the next request on. Raises AccountError."""
        with self._state.write() as session:
            person = _known(session, name)
            old, person.role = person.role, known_role(role)
            if old == ADMIN:
                _keep_an_admin(session)
            detail = {"old": old, "new": role}
            session.add(entry(by, "person.role", f"person:{name}", reason=reason, detail=detail))

    def set_password(self, name: str, password: str, by: str) -> None:
        """Another password; whoever is signed in as this person is signed out. Raises AccountError."""
        hashed = _hashed(name, password)
        with self._state.write() as session:
            _known(session, name).password_hash = hashed
            _sign_out(session, name)
            session.add(entry(by, "person.password", f"person:{name}"))

    def disable(self, name: str, by: str, reason: str = "") -> None:
        """No more signing in, and out everywhere. Raises AccountError."""
        with self._state.write() as session:
            person = _known(session, name)
            person.disabled_at = person.disabled_at or now()
            if person.role == ADMIN:
                _keep_an_admin(session)
            _sign_out(session, name)
            session.add(entry(by, "person.disable", f"person:{name}", reason=reason))

    def enable(self, name: str, by: str, reason: str = "") -> None:
        """Signing in is possible again. Raises AccountError."""
        with self._state.write() as session:
            _known(session, name).disabled_at = None
            session.add(entry(by, "person.enable", f"person:{name}", reason=reason))

    def list(self) -> list[dict[str, Any]]:
        """Everybody, by name, without secrets."""
        with self._state.read() as session:
            return [shown(person) for person in session.scalars(select(Person).order_by(Person.name))]

    def with_password(self, name: str, password: str) -> Person | None:
        """The person whose name and password these are; None where they are not, or it is disabled.

        Raises BusyError.
        """
        with self._state.read() as session:
            person = session.get(Person, name)
        fits = _fits(person.password_hash if person and person.password_hash else _NOBODY, password)
        if person is None or person.password_hash is None or person.disabled_at is not None or not fits:
            return None
        return person

    def of_provider(self, issuer: str, subject: str, name: str, role: str, **seen: str | None) -> Person:
        """The person whom a provider vouches for, with the role that it gives; made at first sight.

        Raises AccountError where the name is somebody else's, or the account is disabled.
        """
        with self._state.write() as session:
            same = select(Person).where(Person.issuer == issuer, Person.subject == subject)
            person = session.scalar(same)
            if person is None:
                if not NAME.fullmatch(name):
                    raise AccountError(f"the provider calls you {name[:80]!r}, which is no name here")
                if session.get(Person, name) is not None:
                    raise AccountError(f"somebody else is called {name} here; an admin must rename one")
                person = Person(
                    name=name, display_name=name, email=None, role=role, password_hash=None,
                    issuer=issuer, subject=subject, created_at=now(), disabled_at=None,
                )  # fmt: skip
                session.add(person)
                detail = {"role": role, "issuer": issuer}
                session.add(entry(f"provider:{issuer}", "person.add", f"person:{name}", detail=detail))
            if person.disabled_at is not None:
                raise AccountError(f"the account {person.name} is disabled; ask an admin")
            if person.role != role:
                detail = {"old": person.role, "new": role}
                subject_of = f"person:{person.name}"
                session.add(entry(f"provider:{issuer}", "person.role", subject_of, detail=detail))
            person.role, person.email = role, seen.get("email")
            person.display_name = seen.get("display_name") or person.name
            return person

    def first(self) -> bool:
        """Make ``admin`` where there is no admin in force; whether nobody could sign in by themselves."""
        with self._state.write() as session:
            people = list(session.scalars(select(Person).where(Person.disabled_at.is_(None))))
            if not any(person.role == ADMIN for person in people):
                found = session.get(Person, ADMIN)
                if found is None:
                    session.add(
                        Person(
                            name=ADMIN, display_name=ADMIN, email=None, role=ADMIN, password_hash=None,
                            issuer=None, subject=None, created_at=now(), disabled_at=None,
                        )
                    )  # fmt: skip
                else:
                    found.role, found.disabled_at = ADMIN, None
                session.add(entry("watchkeeper", "person.add", f"person:{ADMIN}", detail={"role": ADMIN}))
        return not any(person.password_hash or person.subject for person in people)


def shown(person: Person) -> dict[str, Any]:
    """A person without secrets."""
    names = ("name", "display_name", "email", "role", "issuer", "created_at", "disabled_at")
    return {**{name: getattr(person, name) for name in names}, "password": person.password_hash is not None}


def known_role(role: str) -> str:
    """The role itself. Raises AccountError where there is none of that name."""
    if role not in ROLES:
        raise AccountError(f"{role!r} is no role; use one of {', '.join(ROLES)}")
    return role


def _known(session: Session, name: str) -> Person:
    person = session.get(Person, name)
    if person is None:
        raise AccountError(f"nobody is called {name}; `watchkeeper people list` shows everybody")
    return person


def _keep_an_admin(session: Session) -> None:
    admins = select(Person.name).where(Person.role == ADMIN, Person.disabled_at.is_(None)).limit(1)
    if session.scalar(admins) is None:
        raise AccountError("this is the last admin; make somebody else one first")


def _sign_out(session: Session, name: str) -> None:
    session.execute(delete(WebSession).where(WebSession.user == name))
    session.execute(delete(LoginLink).where(LoginLink.user == name))


def _hashed(name: str, password: str) -> str:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise AccountError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    if name.lower() in password.lower():
        raise AccountError("a password does not hold the name")
    with _ROOM:
        return _HASHER.hash(password)


def _fits(hashed: str, password: str) -> bool:
    if not _QUEUE.acquire(blocking=False):
        raise BusyError
    try:
        with _ROOM:
            return _HASHER.verify(hashed, password[:LONGEST_PASSWORD])
    except (VerificationError, InvalidHashError):
        return False
    finally:
        _QUEUE.release()
