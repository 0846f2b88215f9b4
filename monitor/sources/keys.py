"""API keys: who may send, as which tenant and which agents."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select

from monitor.people.roles import RIGHTS
from monitor.store.state import ApiKey, State, now

SCOPES = ("ingest", "replay", *RIGHTS)
"""ingest: send events; replay: send events marked as replayed; the others are those of people."""

LOCAL = "local"
"""Name of the key that the commands on this machine use; made anew at each start."""

REFRESH_SECONDS = 2.0
"""A key that was revoked, or whose time is over, is refused after this long at the latest."""

MISS_SECONDS = 0.2
"""An unknown key makes the table be read again, but no more often than this."""


@dataclass(frozen=True)
class Sender:
    """Who sends: a key's rights, and how this request came in.

    ``agents`` empty means that the key may speak for any agent of its tenant. ``replaying``
    says that the request replays the past, ``way`` and ``content_type`` what a dead letter of
    it must remember, ``redelivered`` that it comes out of dead letters and makes no new ones.
    """

    key_id: str
    tenant: str
    agents: tuple[str, ...] = ()
    scopes: frozenset[str] = frozenset()
    replaying: bool = False
    name: str = ""
    way: str = ""
    content_type: str = ""
    redelivered: bool = False


KEYLESS = Sender("keyless", "default", scopes=frozenset({"ingest", "replay"}), name="keyless")
"""A sender on this machine, where the settings ask for no key."""


def _hash(secret: str) -> str:
    # 256 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(secret.encode()).hexdigest()


class Keys:
    """The keys in the state database, with a short-lived copy in memory."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._senders: dict[str, Sender] = {}
        self._read_at = float("-inf")

    def create(
        self,
        name: str,
        tenant: str = "default",
        agents: Iterable[str] = (),
        scopes: Iterable[str] = ("ingest",),
        expires_at: int | None = None,
    ) -> tuple[str, str]:
        """Make a key; its id and its secret, which is kept nowhere and cannot be shown again.

        ``expires_at`` is in microseconds since the epoch. Raises ValueError at an unknown scope.
        """
        scopes = list(scopes)
        if unknown := sorted(set(scopes) - set(SCOPES)):
            raise ValueError(f"unknown scope {', '.join(unknown)}; use some of {', '.join(SCOPES)}")
        key_id = f"key_{secrets.token_hex(8)}"
        secret = f"wk_{secrets.token_urlsafe(32)}"
        with self._state.write() as session:
            session.add(
                ApiKey(
                    id=key_id,
                    name=name,
                    secret_hash=_hash(secret),
                    tenant=tenant,
                    agents=list(agents),
                    scopes=scopes,
                    created_at=now(),
                    revoked_at=None,
                    expires_at=expires_at,
                )
            )
        return key_id, secret

    def revoke(self, key_id: str) -> bool:
        """Take a key's rights away; whether there was such a key, not yet revoked."""
        with self._state.write() as session:
            key = session.get(ApiKey, key_id)
            if key is None or key.revoked_at is not None:
                return False
            key.revoked_at = now()
        self._read_at = float("-inf")
        return True

    def renew_local(self) -> str:
        """Replace this machine's own key, which has every scope; the new secret."""
        with self._state.read() as session:
            query = select(ApiKey.id).where(ApiKey.name == LOCAL, ApiKey.revoked_at.is_(None))
            former = list(session.scalars(query))
        _, secret = self.create(LOCAL, scopes=SCOPES)
        for key_id in former:
            self.revoke(key_id)
        return secret

    def list(self) -> list[dict[str, Any]]:
        """Every key there ever was, oldest first, without secrets or hashes."""
        with self._state.read() as session:
            keys = session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)).all()
        shown = ("id", "name", "tenant", "agents", "scopes", "created_at", "expires_at", "revoked_at")
        return [{name: getattr(key, name) for name in shown} for key in keys]

    def authenticate(self, authorization: str | None) -> Sender | None:
        """The sender that an ``Authorization: Bearer`` header names, or None.

        The secret is looked up by its hash, so the time taken says nothing about it.
        """
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            return None
        hashed = _hash(secret.strip())
        age = time.monotonic() - self._read_at
        if age > REFRESH_SECONDS or (hashed not in self._senders and age > MISS_SECONDS):
            self._read()
        return self._senders.get(hashed)

    def in_force(self, key_id: str) -> Sender | None:
        """The rights that a key has now; None where it was revoked or never was.

        An earlier key of this machine's commands stands for the present one.
        """
        self._read()
        with self._state.read() as session:
            key = session.get(ApiKey, key_id)
        if key is None:
            return None
        return next(
            (
                sender
                for sender in self._senders.values()
                if sender.key_id == key_id or (key.name == LOCAL == sender.name)
            ),
            None,
        )

    def _read(self) -> None:
        with self._state.read() as session:
            in_force = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now())
            keys = session.scalars(select(ApiKey).where(ApiKey.revoked_at.is_(None), in_force)).all()
        self._senders = {
            key.secret_hash: Sender(
                key.id, key.tenant, tuple(key.agents), frozenset(key.scopes), name=key.name
            )
            for key in keys
        }
        self._read_at = time.monotonic()
