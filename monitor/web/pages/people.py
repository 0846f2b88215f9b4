"""People and roles, for admins."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from monitor.people.accounts import AccountError, People
from monitor.people.roles import RIGHTS, ROLES
from monitor.people.sessions import create_login_link
from monitor.people.trail import note
from monitor.web.auth import Caller, PageAdmin
from monitor.web.context import Console, InConsole
from monitor.web.pages.common import page

router = APIRouter(include_in_schema=False)


@router.get("/people")
def people(console: InConsole, caller: PageAdmin) -> HTMLResponse:
    """Everybody, with what they may do."""
    return _shown(console, caller)


@router.post("/people")
def add(
    console: InConsole,
    caller: PageAdmin,
    name: Annotated[str, Form(max_length=200)],
    role: Annotated[str, Form(max_length=40)],
    reason: Annotated[str, Form(max_length=2000)] = "",
) -> HTMLResponse:
    """A new account, and a link with which it signs in for the first time."""
    try:
        People(console.state).add(name, role, caller.actor, reason=reason)
    except AccountError as error:
        return _shown(console, caller, refused=str(error))
    return _shown(console, caller, link=_link(console, caller, name))


@router.post("/people/{name}")
def change(
    name: str,
    console: InConsole,
    caller: PageAdmin,
    act: Annotated[Literal["role", "disable", "enable", "link"], Form()],
    role: Annotated[str, Form(max_length=40)] = "",
    reason: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """Another role, no entry, entry again, or a one-time link."""
    accounts = People(console.state)
    try:
        if act == "link":
            return _shown(console, caller, link=_link(console, caller, name))
        if act == "role":
            accounts.change_role(name, role, caller.actor, reason)
        elif act == "disable":
            accounts.disable(name, caller.actor, reason)
        else:
            accounts.enable(name, caller.actor, reason)
    except AccountError as error:
        return _shown(console, caller, refused=str(error))
    return RedirectResponse("/people", 303)


def _link(console: Console, caller: Caller, name: str) -> tuple[str, str]:
    token = create_login_link(console.state, name)
    note(console.state, caller.act("login_link.create", f"person:{name}"))
    return name, token


def _shown(
    console: Console, caller: Caller, *, refused: str = "", link: tuple[str, str] | None = None
) -> HTMLResponse:
    return page(
        "people.html",
        caller,
        409 if refused else 200,
        people=People(console.state).list(),
        roles=ROLES,
        rights=RIGHTS,
        refused=refused,
        link=link,
        base=(console.settings.console.public_url or "").rstrip("/"),
    )
