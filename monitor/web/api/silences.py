"""Silences over the API."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import or_, select

from monitor.alerting.silences import Pattern, SilenceError, end, preview, silence
from monitor.store.state import Silence, now
from monitor.web.auth import ApiRead, ApiTriage, Caller
from monitor.web.context import InConsole
from monitor.web.problems import Problem

router = APIRouter(prefix="/api/v1/silences", tags=["silences"])

MOST = 1_000


class About(BaseModel):
    """What a silence is about; what is left out is any."""

    model_config = ConfigDict(extra="forbid")

    rule_id: str = Field(min_length=1, max_length=300)
    tenant: str | None = Field(None, max_length=200)
    agent_id: str | None = Field(None, max_length=512)


class NewSilence(About):
    """A silence to be made; ``ends_at`` in microseconds since the epoch."""

    reason: str = Field(min_length=1, max_length=2000)
    ends_at: int = Field(ge=0, le=1 << 62)


class SilenceShown(BaseModel):
    """A silence; times in microseconds since the epoch."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    rule_id: str
    tenant: str | None
    agent_id: str | None
    owner: str
    reason: str
    created_at: int
    ends_at: int
    ended_by: str | None


class SilencePage(BaseModel):
    """Silences, those that end last first."""

    items: list[SilenceShown]


class PreviewShown(BaseModel):
    """What such a silence would have hidden in the last seven days."""

    hidden: int
    verdicts: dict[str, int]


@router.get("")
def list_silences(
    console: InConsole, caller: ApiRead, ended: Annotated[bool, Query(description="ended ones too")] = False
) -> SilencePage:
    """Silences in force, and where asked those that have ended."""
    query = select(Silence).order_by(Silence.ends_at.desc()).limit(MOST)
    if not ended:
        query = query.where(Silence.ends_at > now())
    if caller.tenant is not None:
        query = query.where(or_(Silence.tenant.is_(None), Silence.tenant == caller.tenant))
    with console.state.read() as session:
        return SilencePage(items=[SilenceShown.model_validate(one) for one in session.scalars(query)])


@router.post("/preview")
def preview_silence(about: About, console: InConsole, caller: ApiRead) -> PreviewShown:
    """What such a silence would have hidden."""
    with console.state.read() as session:
        seen = preview(session, _pattern(about, caller))
    return PreviewShown(hidden=seen.hidden, verdicts=seen.verdicts)


@router.post("", status_code=201)
def make_silence(wanted: NewSilence, console: InConsole, caller: ApiTriage) -> SilenceShown:
    """Silence a rule: 422 where that cannot be."""
    try:
        with console.state.write() as session:
            pattern = _pattern(wanted, caller)
            made = silence(session, pattern, caller.actor, wanted.reason, wanted.ends_at)
            detail = {"rule": pattern.rule_id, "agent": pattern.agent_id, "ends_at": wanted.ends_at}
            session.add(caller.act("silence.create", f"silence:{made.id}", wanted.reason, detail))
            session.flush()
            return SilenceShown.model_validate(made)
    except SilenceError as error:
        raise Problem(422, str(error)) from None


@router.delete("/{silence_id}")
def end_silence(
    silence_id: Annotated[str, Path(max_length=80)], console: InConsole, caller: ApiTriage
) -> SilenceShown:
    """End a silence now: 404 where none of this id is in force."""
    try:
        with console.state.write() as session:
            found = session.get(Silence, silence_id)
            if found is not None and caller.tenant not in (None, found.tenant):
                raise SilenceError("the silence belongs to another tenant")
            ended = end(session, silence_id, caller.actor)
            session.add(caller.act("silence.end", f"silence:{silence_id}"))
            session.flush()
            return SilenceShown.model_validate(ended)
    except SilenceError as error:
        raise Problem(404, str(error)) from None


def _pattern(about: About, caller: Caller) -> Pattern:
    if caller.tenant is not None and about.tenant not in (None, caller.tenant):
        raise Problem(403, "the key belongs to another tenant")
    return Pattern(about.rule_id, about.tenant or caller.tenant, about.agent_id)
