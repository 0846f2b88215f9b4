"""Signing in with a one-time link, a password or the site's provider, and out again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from monitor.people import throttle
from monitor.people.accounts import LONGEST_PASSWORD, BusyError, People
from monitor.people.sessions import begin_session, redeem
from monitor.people.trail import entry, note
from monitor.web.auth import PageRead, address_of, by_cookie, require_same_site, set_cookie, sign_out
from monitor.web.context import Console, InConsole
from monitor.web.provider import ProviderError
from monitor.web.templating import render

router = APIRouter(include_in_schema=False)

WRONG = "Name or password is wrong."


@router.get("/login")
def login_page(request: Request, console: InConsole, token: str = "") -> Response:
    """A button, not a sign-in: whatever fetches links in advance must not use this one up."""
    if not token and by_cookie(request, console) is not None:
        return RedirectResponse("/alerts", 303)
    return _door(console, token=token[:200])


@router.post("/login")
def login(request: Request, console: InConsole, token: Annotated[str, Form(max_length=200)]) -> Response:
    """Use a link up."""
    require_same_site(request)
    cookie = redeem(console.state, token, address_of(request))
    if cookie is None:
        return _door(
            console, 403, refused="This link does not work any more: it was used, or its time is over."
        )
    return _entered(console, cookie)


@router.post("/login/password")
def login_by_password(
    request: Request,
    console: InConsole,
    name: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=4 * LONGEST_PASSWORD)],
) -> Response:
    """Sign in by name and password; failures slow down whoever makes them."""
    require_same_site(request)
    address = address_of(request) or "unknown"
    with console.state.read() as session:
        seconds = throttle.wait(session, name, address)
    if seconds:
        words = f"Too many failed attempts. Try again in {seconds} seconds, or ask for a one-time link."
        answer = _door(console, 429, refused=words, name=name)
        answer.headers["Retry-After"] = str(seconds)
        return answer
    try:
        person = People(console.state).with_password(name, password)
    except BusyError:
        answer = _door(console, 429, refused="Too many people are signing in. Try again.", name=name)
        answer.headers["Retry-After"] = "1"
        return answer
    with console.state.write() as session:
        if person is not None:
            throttle.succeeded(session, name, address)
            return _entered(console, begin_session(session, person, "password", address))
        throttle.failed(session, name, address)
        session.add(entry(name[:80], "sign_in.failed", f"person:{name[:80]}", address=address))
    return _door(console, 403, refused=WRONG, name=name)


@router.get("/login/provider")
async def to_provider(request: Request, console: InConsole) -> Response:
    """Go to the site's provider."""
    if console.provider is None:
        return RedirectResponse("/login", 303)
    base = console.settings.console.public_url or str(request.base_url)
    try:
        return await console.provider.depart(request, f"{base.rstrip('/')}/login/provider/back")
    except ProviderError as error:
        return _door(console, 503, refused=f"{str(error).capitalize()}.")


@router.get("/login/provider/back")
async def from_provider(request: Request, console: InConsole) -> Response:
    """Come back from the site's provider."""
    if console.provider is None:
        return RedirectResponse("/login", 303)
    try:
        claims = await console.provider.claims(request)
        cookie = await run_in_threadpool(_known_there, console, claims, address_of(request))
    except ProviderError as error:
        told = entry("nobody", "sign_in.failed", "provider", address=address_of(request), reason=str(error))
        await run_in_threadpool(note, console.state, told)
        return _door(console, 403, refused=f"{str(error)[:1].upper()}{str(error)[1:]}.")
    return _entered(console, cookie)


@router.post("/logout")
def logout(request: Request, console: InConsole, _caller: PageRead) -> Response:
    """Sign out, here and on the server."""
    answer = RedirectResponse("/login", 303)
    sign_out(request, answer, console)
    return answer


def _known_there(console: Console, claims: dict[str, object], address: str | None) -> str:
    assert console.provider is not None
    person = console.provider.person(People(console.state), claims)
    with console.state.write() as session:
        return begin_session(session, person, "provider", address)


def _entered(console: Console, cookie: str) -> Response:
    answer = RedirectResponse("/alerts", 303)
    set_cookie(answer, console, cookie)
    return answer


def _door(
    console: Console, status: int = 200, *, token: str = "", refused: str = "", name: str = ""
) -> HTMLResponse:
    text = render(
        "login.html",
        token=token,
        refused=refused,
        name=name[:200],
        provider=console.provider is not None,
    )
    return HTMLResponse(text, status)
