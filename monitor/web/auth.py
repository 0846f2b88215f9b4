"""Who is asking: a person by a one-time link and a cookie, or a program by an API key.

Tokens are 256 random bits and only their SHA-256 is kept, so a copy of the state database
signs nobody in. Every write by cookie needs the session's CSRF token as well, which is what
lets the cookie be ``SameSite=Lax``: links in chat messages must find the reader signed in.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Form, Header, Request
from starlette.responses import Response

from monitor.sources.keys import LOCAL
from monitor.store.state import LoginLink, State, WebSession, now
from monitor.web.context import Console, console_of
from monitor.web.problems import Problem, SignInNeeded

SESSION_LIFE = timedelta(hours=12)
LINK_LIFE = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Caller:
    """Who is asking, and what they may do.

    ``actor`` is the name that the history keeps. ``tenant`` bounds what a key may see;
    None, as for people, sees every tenant.
    """

    actor: str
    scopes: frozenset[str]
    tenant: str | None = None
    csrf: str | None = None
    expires_at: int | None = None


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_login_link(state: State, user: str, ttl: timedelta = LINK_LIFE) -> str:
    """A token for ``/login?token=…`` that signs ``user`` in once, within ``ttl``."""
    token = secrets.token_urlsafe(32)
    moment = now()
    with state.write() as session:
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


def redeem(state: State, token: str) -> str | None:
    """Use a link up and begin a session: the cookie's value, or None where the link is no good."""
    moment = now()
    cookie = secrets.token_urlsafe(32)
    with state.write() as session:
        link = session.get(LoginLink, digest(token))
        if link is None or link.used_at is not None or link.expires_at <= moment:
            return None
        link.used_at = moment
        session.add(
            WebSession(
                token_hash=digest(cookie),
                user=link.user,
                csrf=secrets.token_urlsafe(32),
                created_at=moment,
                expires_at=moment + SESSION_LIFE // MICROSECOND,
            )
        )
    return cookie


def cookie_name(console: Console) -> str:
    """The ``__Host-`` prefix ties the cookie to this host and path where the address is https."""
    return "__Host-watchkeeper" if console.https else "watchkeeper"


def set_cookie(response: Response, console: Console, value: str) -> None:
    """Give the browser its session."""
    response.set_cookie(
        cookie_name(console),
        value,
        max_age=int(SESSION_LIFE.total_seconds()),
        path="/",
        httponly=True,
        secure=console.https,
        samesite="lax",
    )


def end_session(request: Request, response: Response, console: Console) -> None:
    """Forget the session on both sides."""
    if cookie := request.cookies.get(cookie_name(console)):
        with console.state.write() as session:
            if (found := session.get(WebSession, digest(cookie))) is not None:
                session.delete(found)
    response.delete_cookie(cookie_name(console), path="/", secure=console.https, httponly=True)


def by_cookie(request: Request, console: Console) -> Caller | None:
    """The signed-in person, or None."""
    cookie = request.cookies.get(cookie_name(console))
    if not cookie:
        return None
    with console.state.read() as session:
        found = session.get(WebSession, digest(cookie))
    if found is None or found.expires_at <= now():
        return None
    scopes = frozenset({"read", "operate"})
    return Caller(found.user, scopes, csrf=found.csrf, expires_at=found.expires_at)


def by_key(request: Request, console: Console) -> Caller | None:
    """The program behind an ``Authorization`` header, or None."""
    header = request.headers.get("authorization")
    sender = console.keys.authenticate(header) if header else None
    if sender is None:
        return None
    return Caller(
        f"key:{sender.key_id}",
        frozenset(sender.scopes),
        tenant=None if sender.name == LOCAL else sender.tenant,
    )


def require_same_site(request: Request) -> None:
    """Browsers say where a request comes from; programs do not, and carry no cookie either."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Problem(403, "this request came from another site; open the console itself")


def _token_fits(caller: Caller, token: str | None) -> bool:
    return caller.csrf is not None and token is not None and hmac.compare_digest(caller.csrf, token)


def signed_in(request: Request, console: Annotated[Console, Depends(console_of)]) -> Caller:
    """For pages: the person, or the way to sign in."""
    caller = by_cookie(request, console)
    if caller is None:
        raise SignInNeeded
    return caller


def signed_in_to_write(
    request: Request,
    caller: Annotated[Caller, Depends(signed_in)],
    csrf: Annotated[str | None, Form()] = None,
    x_csrf_token: Annotated[str | None, Header()] = None,
) -> Caller:
    """For forms: the person, and proof that the form is ours."""
    require_same_site(request)
    if not _token_fits(caller, x_csrf_token or csrf):
        raise Problem(403, "the form is out of date; load the page again")
    return caller


def _api_caller(request: Request, console: Console, scope: str) -> Caller:
    if "authorization" in request.headers:
        caller = by_key(request, console)
    else:
        caller = by_cookie(request, console)
        if caller is not None and request.method not in SAFE_METHODS:
            require_same_site(request)
            if not _token_fits(caller, request.headers.get("x-csrf-token")):
                raise Problem(403, "a write by cookie needs the X-CSRF-Token header")
    if caller is None:
        raise Problem(
            401,
            "send `Authorization: Bearer wk_…` with a valid key; `watchkeeper keys create` makes one",
            {"WWW-Authenticate": "Bearer"},
        )
    if scope not in caller.scopes:
        raise Problem(403, f"the key lacks the scope `{scope}`; create one that has it")
    return caller


def may_read(request: Request, console: Annotated[Console, Depends(console_of)]) -> Caller:
    """For the API: somebody with the ``read`` scope."""
    return _api_caller(request, console, "read")


def may_operate(request: Request, console: Annotated[Console, Depends(console_of)]) -> Caller:
    """For the API: somebody with the ``operate`` scope."""
    return _api_caller(request, console, "operate")


SignedIn = Annotated[Caller, Depends(signed_in)]
SignedInToWrite = Annotated[Caller, Depends(signed_in_to_write)]
MayRead = Annotated[Caller, Depends(may_read)]
MayOperate = Annotated[Caller, Depends(may_operate)]
