"""Who is asking: a person by a cookie, or a program by an API key; and what each route needs of them.

Every route names the right it needs (`Needs`), and nothing else lets anybody in. Every write by
cookie needs the session's CSRF token as well, which is what lets the cookie be ``SameSite=Lax``:
links in chat messages must find the reader signed in.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from monitor.people import trail
from monitor.people.roles import ROLES, with_right
from monitor.people.sessions import SESSION_LIFE, end_session, signed_in_as
from monitor.sources.keys import LOCAL
from monitor.store.state import AuditEntry
from monitor.web.context import Console, console_of
from monitor.web.problems import Problem, SignInNeeded

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Caller:
    """Who is asking, and what they may do.

    ``actor`` is the name that the history keeps, ``rights`` are some of `RIGHTS`. ``tenant`` bounds
    what a key may see; None, as for people, sees every tenant.
    """

    actor: str
    rights: frozenset[str]
    role: str | None = None
    tenant: str | None = None
    csrf: str | None = field(default=None, repr=False)
    expires_at: int | None = None
    address: str | None = None

    def may(self, right: str) -> bool:
        """Whether they have a right."""
        return right in self.rights

    def act(
        self, action: str, subject: str, reason: str = "", detail: dict[str, Any] | None = None
    ) -> AuditEntry:
        """What the audit trail keeps of an act."""
        return trail.entry(
            self.actor, action, subject, role=self.role, reason=reason, address=self.address, detail=detail
        )


def note_reading(console: Console, caller: Caller, subject: str) -> None:
    """Keep in the trail that somebody reads content: what agents were told, did and got."""
    with console.state.read() as session:
        if trail.read_lately(session, caller.actor, subject):
            return
    trail.note(console.state, caller.act(trail.CONTENT_READ, subject))


def address_of(request: Request) -> str | None:
    """Where a request comes from, as the server saw it."""
    return request.client.host if request.client else None


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


def sign_out(request: Request, response: Response, console: Console) -> None:
    """Forget the session on both sides."""
    if cookie := request.cookies.get(cookie_name(console)):
        end_session(console.state, cookie)
    response.delete_cookie(cookie_name(console), path="/", secure=console.https, httponly=True)


def by_cookie(request: Request, console: Console) -> Caller | None:
    """The signed-in person, or None."""
    cookie = request.cookies.get(cookie_name(console))
    found = signed_in_as(console.state, cookie) if cookie else None
    if found is None:
        return None
    session, person = found
    return Caller(
        person.name,
        ROLES[person.role],
        role=person.role,
        csrf=session.csrf,
        expires_at=session.expires_at,
        address=address_of(request),
    )


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
        address=address_of(request),
    )


def require_same_site(request: Request) -> None:
    """Browsers say where a request comes from; programs do not, and carry no cookie either."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Problem(403, "this request came from another site; open the console itself")


async def _token(request: Request) -> str | None:
    if (header := request.headers.get("x-csrf-token")) is not None:
        return header
    if request.headers.get("content-type", "").startswith("application/json"):
        return None
    sent = (await request.form()).get("csrf")
    return sent if isinstance(sent, str) else None


async def _prove(request: Request, caller: Caller, remedy: str) -> None:
    """Raises Problem unless a write by cookie carries the session's token."""
    require_same_site(request)
    token = await _token(request)
    if caller.csrf is None or token is None or not hmac.compare_digest(caller.csrf, token):
        raise Problem(403, remedy)


class Needs:
    """What a route needs of whoever asks: one right. The dependency gives the caller."""

    def __init__(self, right: str) -> None:
        self.right = right


class Page(Needs):
    """For pages: a signed-in person, or the way to sign in."""

    async def __call__(self, request: Request, console: Annotated[Console, Depends(console_of)]) -> Caller:
        """The person. Raises SignInNeeded or Problem."""
        caller = await run_in_threadpool(by_cookie, request, console)
        if caller is None:
            raise SignInNeeded
        if request.method not in SAFE_METHODS:
            await _prove(request, caller, "the form is out of date; load the page again")
        if not caller.may(self.right):
            raise Problem(
                403, f"your role, {caller.role}, may not do this; it takes one of {with_right(self.right)}"
            )
        return caller


class Api(Needs):
    """For the API: a program with a key, or a person's own page."""

    async def __call__(self, request: Request, console: Annotated[Console, Depends(console_of)]) -> Caller:
        """The caller. Raises Problem."""
        if "authorization" in request.headers:
            caller = await run_in_threadpool(by_key, request, console)
        else:
            caller = await run_in_threadpool(by_cookie, request, console)
            if caller is not None and request.method not in SAFE_METHODS:
                await _prove(request, caller, "a write by cookie needs the X-CSRF-Token header")
        if caller is None:
            raise Problem(
                401,
                "send `Authorization: Bearer wk_…` with a valid key; `watchkeeper keys create` makes one",
                {"WWW-Authenticate": "Bearer"},
            )
        if not caller.may(self.right):
            what = f"your role, {caller.role}," if caller.role else "the key"
            raise Problem(403, f"{what} lacks the right `{self.right}`; use one that has it")
        return caller


PageRead = Annotated[Caller, Depends(Page("read"))]
PageTriage = Annotated[Caller, Depends(Page("triage"))]
PageRespond = Annotated[Caller, Depends(Page("respond"))]
PageAudit = Annotated[Caller, Depends(Page("audit"))]
PageAdmin = Annotated[Caller, Depends(Page("admin"))]
ApiRead = Annotated[Caller, Depends(Api("read"))]
ApiTriage = Annotated[Caller, Depends(Api("triage"))]
ApiRespond = Annotated[Caller, Depends(Api("respond"))]
ApiAudit = Annotated[Caller, Depends(Api("audit"))]
ApiAdmin = Annotated[Caller, Depends(Api("admin"))]
