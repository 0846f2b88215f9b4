"""Signing in with a one-time link, and out again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from monitor.web.auth import (
    SignedInToWrite,
    by_cookie,
    end_session,
    redeem,
    require_same_site,
    set_cookie,
)
from monitor.web.context import InConsole
from monitor.web.templating import render

router = APIRouter(include_in_schema=False)


@router.get("/login")
def login_page(request: Request, console: InConsole, token: str = "") -> Response:
    """A button, not a sign-in: whatever fetches links in advance must not use this one up."""
    if not token and by_cookie(request, console) is not None:
        return RedirectResponse("/alerts", 303)
    return HTMLResponse(render("login.html", token=token[:200], refused=False))


@router.post("/login")
def login(request: Request, console: InConsole, token: Annotated[str, Form(max_length=200)]) -> Response:
    """Use the link up."""
    require_same_site(request)
    cookie = redeem(console.state, token)
    if cookie is None:
        return HTMLResponse(render("login.html", token="", refused=True), 403)
    answer = RedirectResponse("/alerts", 303)
    set_cookie(answer, console, cookie)
    return answer


@router.post("/logout")
def logout(request: Request, console: InConsole, _caller: SignedInToWrite) -> Response:
    """Sign out, here and on the server."""
    answer = RedirectResponse("/login", 303)
    end_session(request, answer, console)
    return answer
