"""One's own account: what one may do, and the password."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from monitor.people.accounts import LONGEST_PASSWORD, SHORTEST_PASSWORD, AccountError, BusyError, People
from monitor.people.roles import RIGHTS
from monitor.store.state import Person
from monitor.web.auth import Caller, PageRead
from monitor.web.context import Console, InConsole
from monitor.web.pages.common import page

router = APIRouter(include_in_schema=False)


@router.get("/account")
def account(console: InConsole, caller: PageRead) -> HTMLResponse:
    """The page."""
    return _shown(console, caller)


@router.post("/account/password")
def set_password(
    console: InConsole,
    caller: PageRead,
    password: Annotated[str, Form(max_length=4 * LONGEST_PASSWORD)],
    again: Annotated[str, Form(max_length=4 * LONGEST_PASSWORD)],
    present: Annotated[str, Form(max_length=4 * LONGEST_PASSWORD)] = "",
) -> Response:
    """Set it; every browser that is signed in, this one too, signs in anew."""
    people = People(console.state)
    with console.state.read() as session:
        person = session.get(Person, caller.actor)
    if person is not None and person.issuer is not None:
        return _shown(
            console, caller, "You sign in by your organisation's provider; set your password there."
        )
    if password != again:
        return _shown(console, caller, "The two passwords differ.")
    has_one = person is not None and person.password_hash is not None
    try:
        if has_one and people.with_password(caller.actor, present) is None:
            return _shown(console, caller, "The present password is wrong.")
        people.set_password(caller.actor, password, caller.actor)
    except BusyError:
        return _shown(console, caller, "Too many people are signing in. Try again.")
    except AccountError as error:
        return _shown(console, caller, f"{str(error)[:1].upper()}{str(error)[1:]}.")
    return RedirectResponse("/login", 303)


def _shown(console: Console, caller: Caller, refused: str = "") -> HTMLResponse:
    with console.state.read() as session:
        person = session.get(Person, caller.actor)
    return page(
        "account.html",
        caller,
        409 if refused else 200,
        person=person,
        rights=RIGHTS,
        shortest=SHORTEST_PASSWORD,
        refused=refused,
    )
