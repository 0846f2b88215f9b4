"""People and the audit trail over the API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from monitor.people.accounts import LONGEST_PASSWORD, AccountError, People
from monitor.people.reading import Asked, entries
from monitor.settings import Role
from monitor.web.api.cursors import LATEST
from monitor.web.auth import ApiAdmin, ApiAudit
from monitor.web.context import InConsole
from monitor.web.problems import Problem

router = APIRouter(prefix="/api/v1", tags=["people"])

Name = Annotated[str, Field(min_length=1, max_length=80)]


class NewPerson(BaseModel):
    """An account to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    role: Role
    display_name: str = Field("", max_length=200)
    email: str | None = Field(None, max_length=320)
    password: str | None = Field(None, max_length=LONGEST_PASSWORD)
    reason: str = Field("", max_length=2000)


class PersonChange(BaseModel):
    """What is to change of an account; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    role: Role | None = None
    disabled: bool | None = None
    reason: str = Field(min_length=1, max_length=2000)


class PersonShown(BaseModel):
    """An account; ``password`` says whether there is one."""

    name: str
    display_name: str
    email: str | None
    role: str
    issuer: str | None
    password: bool
    created_at: int
    disabled_at: int | None


class PeoplePage(BaseModel):
    """Everybody."""

    items: list[PersonShown]


class AuditShown(BaseModel):
    """An entry of the audit trail; ``at`` in microseconds since the epoch."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    at: int
    actor: str
    role: str | None
    action: str
    subject: str
    reason: str
    address: str | None
    detail: dict[str, Any]


class AuditPage(BaseModel):
    """Entries, newest first; ``next_cursor`` is None at the end."""

    items: list[AuditShown]
    next_cursor: str | None


@router.get("/people")
def list_people(console: InConsole, caller: ApiAdmin) -> PeoplePage:
    """Everybody, by name."""
    return PeoplePage(items=[PersonShown(**one) for one in People(console.state).list()])


@router.post("/people", status_code=201)
def add_person(wanted: NewPerson, console: InConsole, caller: ApiAdmin) -> PersonShown:
    """Make an account: 409 where the name is taken or cannot be used."""
    people = People(console.state)
    try:
        people.add(
            wanted.name,
            wanted.role,
            caller.actor,
            display_name=wanted.display_name,
            email=wanted.email,
            password=wanted.password,
            reason=wanted.reason,
        )
    except AccountError as error:
        raise Problem(409, str(error)) from None
    return _one(people, wanted.name)


@router.patch("/people/{name}")
def change_person(name: Name, change: PersonChange, console: InConsole, caller: ApiAdmin) -> PersonShown:
    """Change a role, or whether the account is in force: 409 where that cannot be."""
    people = People(console.state)
    try:
        if change.role is not None:
            people.change_role(name, change.role, caller.actor, change.reason)
        if change.disabled is not None:
            (people.disable if change.disabled else people.enable)(name, caller.actor, change.reason)
        return _one(people, name)
    except AccountError as error:
        raise Problem(409, str(error)) from None


@router.get("/audit")
def audit(
    console: InConsole,
    caller: ApiAudit,
    actor: Annotated[str | None, Query(max_length=300)] = None,
    action: Annotated[str | None, Query(max_length=300)] = None,
    subject: Annotated[str | None, Query(max_length=300)] = None,
    since: Annotated[int | None, Query(ge=0, le=LATEST)] = None,
    until: Annotated[int | None, Query(ge=0, le=LATEST)] = None,
    cursor: Annotated[int | None, Query(ge=0, le=LATEST)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> AuditPage:
    """Who did what to what, newest first; ``action`` may be what it begins with."""
    asked = Asked(actor, action, subject, since, until, cursor)
    with console.state.read() as session:
        found = [AuditShown.model_validate(one) for one in entries(session, asked, limit)]
    return AuditPage(items=found, next_cursor=str(found[-1].id) if len(found) == limit else None)


def _one(people: People, name: str) -> PersonShown:
    for one in people.list():
        if one["name"] == name:
            return PersonShown(**one)
    raise AccountError(f"nobody is called {name}")
