"""Somebody who is let in."""

from __future__ import annotations

import contextlib
from datetime import timedelta

from monitor.people.accounts import AccountError, People
from monitor.people.sessions import LINK_LIFE, create_login_link
from monitor.store.state import State


def link(state: State, name: str, ttl: timedelta = LINK_LIFE, role: str = "admin") -> str:
    """A one-time link for somebody, who is made where there is nobody of that name."""
    with contextlib.suppress(AccountError):
        People(state).add(name, role, "test")
    return create_login_link(state, name, ttl)
