"""Failed sign-ins slow down whoever makes them: by name and address, by address, and by name.

The last is far looser than the others: else anybody could lock anybody out.
"""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.orm import Session

from monitor.store.state import SignInFailure, now

SECOND = 1_000_000
FORGOTTEN = 60 * 60 * SECOND
"""After this long without another failure, failures are forgotten."""

LONGEST_WAIT = 15 * 60
"""Seconds."""

FREE = {"both": 5, "address": 20, "name": 50}
"""Failures without a wait; each further one doubles it, from two seconds."""


def wait(session: Session, name: str, address: str) -> int:
    """Seconds until this name may be tried from this address again; 0 at once."""
    moment = now()
    found = [session.get(SignInFailure, place) for place in _places(name, address)]
    until = max((one.until for one in found if one is not None), default=0)
    return max(0, -(-(until - moment) // SECOND))


def failed(session: Session, name: str, address: str) -> None:
    """One more failure."""
    moment = now()
    session.execute(delete(SignInFailure).where(SignInFailure.last_at < moment - FORGOTTEN))
    for place in _places(name, address):
        found = session.get(SignInFailure, place)
        if found is None:
            found = SignInFailure(place=place, failures=0, last_at=moment, until=0)
            session.add(found)
        found.failures += 1
        found.last_at = moment
        beyond = found.failures - FREE[place.split(":")[0]]
        if beyond > 0:
            found.until = moment + min(LONGEST_WAIT, 2 ** min(beyond, 12)) * SECOND


def succeeded(session: Session, name: str, address: str) -> None:
    """The right person came: what failed under this name from here is forgotten."""
    session.execute(delete(SignInFailure).where(SignInFailure.place == _places(name, address)[0]))


def _places(name: str, address: str) -> list[str]:
    name = name[:80]
    return [f"both:{name}@{address}", f"address:{address}", f"name:{name}"]
