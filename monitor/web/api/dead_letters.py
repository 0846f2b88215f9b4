"""Dead letters over the API: listed, shown, downloaded, sent again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Self

import httpx
import msgspec
from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from monitor.people import trail
from monitor.runtime import read_runtime
from monitor.sources.deadreader import ID, Kept, Wanted, find, find_all, newest, page
from monitor.web.auth import ApiRead, ApiTriage, Caller, note_reading
from monitor.web.context import Console, InConsole
from monitor.web.problems import Problem

router = APIRouter(prefix="/api/v1/dead-letters", tags=["dead letters"])

EXCERPT = 300
MOST_REPLAYED = 500
REPLAY_SECONDS = 120.0

Id = Annotated[str, Path(pattern=f"^{ID}$", examples=["3-17"])]
Before = Annotated[str | None, Query(alias="cursor", pattern=f"^{ID}$")]


class DeadLetterSummary(BaseModel):
    """One refusal, and when and by whom it was sent again. ``excerpt`` is the beginning of a text."""

    id: str
    at: int
    key_id: str
    tenant: str
    way: str
    content_type: str
    replaying: bool
    index: int
    reason: str
    form: str
    encoding: str
    size: int
    excerpt: str | None
    replayed_at: int | None
    replayed_by: str | None

    @classmethod
    def of(cls, kept: Kept) -> Self:
        """From a letter in its place."""
        return cls(**_columns(kept))


class DeadLetterDetail(DeadLetterSummary):
    """A refusal with all that was kept of it: text, or base64 where ``encoding`` says so."""

    raw: str | None

    @classmethod
    def of(cls, kept: Kept) -> Self:
        """From a letter in its place."""
        return cls(**_columns(kept), raw=kept.letter.raw)


class DeadLetterPage(BaseModel):
    """Dead letters, newest first. ``next_cursor`` asks for the page after; None on the last."""

    items: list[DeadLetterSummary]
    next_cursor: str | None


class Replay(BaseModel):
    """Which letters to send again."""

    model_config = ConfigDict(extra="forbid")

    ids: list[Annotated[str, Field(pattern=f"^{ID}$")]] = Field(min_length=1, max_length=MOST_REPLAYED)


class ReplayOutcome(BaseModel):
    """What became of one letter: replayed, already, refused, gone or waiting (then ask again)."""

    id: str
    state: str
    reason: str


class Replayed(BaseModel):
    """What became of the letters, in the order in which they were asked for."""

    outcomes: list[ReplayOutcome]


def _columns(kept: Kept) -> dict[str, Any]:
    letter = msgspec.structs.asdict(kept.letter)
    raw = letter.pop("raw")
    done = kept.done
    return {
        "id": kept.id,
        **letter,
        "excerpt": raw and raw[:EXCERPT],
        "replayed_at": done.at if done else None,
        "replayed_by": done.actor if done else None,
    }


def wanted(
    caller: ApiRead,
    reason: Annotated[str | None, Query(max_length=200, description="a part of the reason")] = None,
    key: Annotated[str | None, Query(max_length=100, description="id of the sender's key")] = None,
    since: Annotated[int | None, Query(description="microseconds since the epoch")] = None,
    replayed: Annotated[
        bool | None, Query(description="only those that were, or were not, sent again")
    ] = None,
) -> Wanted:
    """The letters that are asked for and that the caller may see."""
    return Wanted(caller.tenant, key, reason, since, replayed)


def noted(console: InConsole, caller: ApiRead) -> None:
    """What was sent is in what is listed: the trail keeps that somebody reads it."""
    note_reading(console, caller, "dead_letters")


NOTED = [Depends(noted)]
AsWanted = Annotated[Wanted, Depends(wanted)]


@router.get("", dependencies=NOTED)
def list_dead_letters(
    console: InConsole,
    asked: AsWanted,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> DeadLetterPage:
    """Dead letters, newest first."""
    found = page(console.settings.dead_letters_folder, asked.fits, before, limit + 1)
    more = found[limit - 1].id if len(found) > limit else None
    return DeadLetterPage(items=[DeadLetterSummary.of(kept) for kept in found[:limit]], next_cursor=more)


@router.get("/download", response_class=StreamingResponse, dependencies=NOTED)
def download(console: InConsole, asked: AsWanted) -> StreamingResponse:
    """Dead letters with all that was kept of them, as NDJSON, newest first."""

    def lines() -> Iterator[bytes]:
        for kept in filter(asked.fits, newest(console.settings.dead_letters_folder)):
            yield DeadLetterDetail.of(kept).model_dump_json(exclude={"excerpt"}).encode() + b"\n"

    headers = {"Content-Disposition": 'attachment; filename="dead-letters.ndjson"'}
    return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)


@router.get("/{letter_id}", dependencies=NOTED)
def get_dead_letter(letter_id: Id, console: InConsole, caller: ApiRead) -> DeadLetterDetail:
    """One dead letter, whole."""
    kept = find(console.settings.dead_letters_folder, letter_id)
    if kept is None or caller.tenant not in (None, kept.letter.tenant):
        raise Problem(404, "there is no such dead letter; GET /api/v1/dead-letters lists them")
    return DeadLetterDetail.of(kept)


@router.post("/replay")
async def replay(asked: Replay, console: InConsole, caller: ApiTriage) -> Replayed:
    """Send letters again through the edge, each as its sender and with its sender's rights of today.

    One that was sent again before is not touched.
    """
    mine = await run_in_threadpool(_visible, console, asked.ids, caller)
    if mine:
        told = [caller.act("dead_letter.replay", f"dead_letter:{one}") for one in mine]
        await run_in_threadpool(trail.note, console.state, *told)
    answered = await _ask_edge(console, mine, caller.actor) if mine else {}
    gone = ReplayOutcome(id="", state="gone", reason="there is no such dead letter")
    return Replayed(
        outcomes=[answered.get(one, gone.model_copy(update={"id": one})) for one in dict.fromkeys(asked.ids)]
    )


def _visible(console: Console, ids: list[str], caller: Caller) -> list[str]:
    found = find_all(console.settings.dead_letters_folder, dict.fromkeys(ids))
    return [one for one, kept in found.items() if caller.tenant in (None, kept.letter.tenant)]


async def _ask_edge(console: Console, ids: list[str], actor: str) -> dict[str, ReplayOutcome]:
    runtime = read_runtime(console.settings.data)
    if runtime is None:
        raise Problem(503, "the edge cannot be reached; see that the daemon runs, then ask again")
    try:
        async with httpx.AsyncClient(timeout=REPLAY_SECONDS, trust_env=False) as client:
            reply = await client.post(
                f"{runtime.edge_url}/v1/dead-letters/replay",
                json={"ids": ids, "actor": actor},
                headers={"Authorization": f"Bearer {runtime.token}"},
            )
    except httpx.TransportError:
        raise Problem(503, "the edge does not answer; ask again") from None
    if not reply.is_success:
        raise Problem(503, "the edge refuses to send letters again now; ask again")
    outcomes = [ReplayOutcome.model_validate(one) for one in reply.json()["outcomes"]]
    return {outcome.id: outcome for outcome in outcomes}
