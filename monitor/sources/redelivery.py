"""Dead letters sent again: through the edge's own doors, as their sender, with their sender's rights.

Only the console may ask for it; it decides who may (web/api/dead_letters.py). Nothing here knows
how events or spans are read: a letter becomes the request that it once was, put to the same
application inside the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import httpx
import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from monitor.settings import Settings
from monitor.sources.deadreader import ID, Kept, find_all, mark_done
from monitor.sources.door import REPLAY_HEADER, SENDER, Door
from monitor.sources.keys import KEYLESS, LOCAL, Keys, Sender
from monitor.sources.otlp_answers import PROTOBUF, told
from monitor.sources.problem import ProblemError, json_response
from monitor.telemetry import logger

if TYPE_CHECKING:
    from monitor.pipeline import Intake

MOST = 500
"""Letters of one call, and events of one request among them; fewer where the edge takes fewer."""

EVENTS = "/v1/events"
NDJSON = "application/x-ndjson"

MOST_BYTES = 4 << 20
"""Events are put into one request up to this size together, or up to what the edge takes."""


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What the console asks: which letters, and in whose name."""

    ids: Annotated[list[Annotated[str, msgspec.Meta(pattern=f"^{ID}$")]], msgspec.Meta(max_length=MOST)]
    actor: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Outcome(msgspec.Struct, frozen=True):
    """What became of one letter: ``replayed``, ``already`` (before), ``refused``, ``gone`` or ``waiting``.

    ``waiting`` could not be taken now: nothing came of it, and it can be asked for again.
    """

    id: str
    state: str
    reason: str = ""


class Redelivery:
    """The route, over the application whose other routes take the letters in."""

    def __init__(self, app: ASGIApp, intake: Intake, door: Door, keys: Keys, settings: Settings) -> None:
        self._app = app
        self._intake = intake
        self._door = door
        self._keys = keys
        self._folder = settings.dead_letters_folder
        self._keyless = settings.edge.keyless_loopback
        self._most = min(MOST, settings.edge.max_waiting_events)
        self._most_bytes = min(MOST_BYTES, settings.edge.max_body_bytes)
        self._turn = asyncio.Lock()

    async def replay(self, request: Request) -> Response:
        """POST /v1/dead-letters/replay: an outcome for each id that was asked for, in that order."""
        sender = await self._door.sender(request)
        if sender.name != LOCAL:
            raise ProblemError(403, "only the console may do this; POST to its /api/v1/dead-letters/replay")
        try:
            asked = msgspec.json.decode(await self._door.read(request, sender), type=Asked)
        except msgspec.DecodeError as error:
            raise ProblemError(400, f"not a list of ids and an actor: {error}") from None
        # Two at once would both find a letter not yet done.
        async with self._turn:
            outcomes = await self._replay(asked)
        return json_response({"outcomes": outcomes})

    async def _replay(self, asked: Asked) -> list[Outcome]:
        kept = await asyncio.to_thread(find_all, self._folder, asked.ids)
        outcomes = {
            letter_id: Outcome(letter_id, "already" if letter_id in kept else "gone")
            for letter_id in asked.ids
        }
        todo = sorted((one for one in kept.values() if one.done is None), key=lambda one: _order(one.id))
        if todo:
            logger().info("dead letters are replayed", actor=asked.actor, letters=[one.id for one in todo])
            note = {"actor": asked.actor, "letters": [one.id for one in todo]}
            await self._intake.committer.control("dead_letters_replayed", note)
        for letters in _requests(todo, self._most, self._most_bytes):
            made = await self._send(letters)
            outcomes |= {outcome.id: outcome for outcome in made}
            replayed = [outcome.id for outcome in made if outcome.state == "replayed"]
            await asyncio.to_thread(mark_done, self._folder, replayed, time.time_ns() // 1000, asked.actor)
        return list(outcomes.values())

    async def _send(self, letters: list[Kept]) -> list[Outcome]:
        """Put letters that fit into one request to the application again."""
        first = letters[0].letter
        sender = self._sender(first.key_id, first.tenant)
        if sender is None:
            reason = "the key that sent it is not in force any more; send the data with another key"
            return [Outcome(one.id, "refused", reason) for one in letters]
        bodies = [one.letter.bytes() for one in letters]
        if first.form == "excerpt" or not all(body and body.strip() for body in bodies):
            reason = "only a part of it was kept; send the data itself again"
            return [Outcome(one.id, "refused", reason) for one in letters]
        record = first.form == "record"
        path, kind = (EVENTS, NDJSON) if record else (first.way, first.content_type)
        # A tab is white space in JSON like a newline, and forbidden within strings like one.
        lines = (body.replace(b"\n", b"\t") if record else body for body in bodies if body)
        reply = await self._post(path, b"\n".join(lines), kind, sender, first.replaying)
        return _outcomes(letters, reply)

    def _sender(self, key_id: str, tenant: str) -> Sender | None:
        """The rights that the letter's sender has now, never more: a revoked key sends nothing."""
        if key_id == KEYLESS.key_id:
            sender = KEYLESS if self._keyless else None
        else:
            sender = self._keys.in_force(key_id)
        return sender if sender is not None and sender.tenant == tenant else None

    async def _post(
        self, path: str, body: bytes, content_type: str, sender: Sender, replaying: bool
    ) -> httpx.Response:
        async def as_sender(scope: Scope, receive: Receive, send: Send) -> None:
            await self._app({**scope, SENDER: replace(sender, redelivered=True)}, receive, send)

        headers = {"Content-Type": content_type} | ({REPLAY_HEADER: "true"} if replaying else {})
        transport = httpx.ASGITransport(as_sender, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
            return await client.post(path, content=body, headers=headers)


def _order(letter_id: str) -> tuple[int, ...]:
    return tuple(map(int, letter_id.split("-")))


def _requests(letters: Iterable[Kept], most: int, most_bytes: int) -> Iterator[list[Kept]]:
    """Neighbouring records of one sender together, as far as they fit; everything else by itself."""
    waiting: list[Kept] = []
    size = 0
    for one in letters:
        together = waiting and _kind(one) == _kind(waiting[0]) and one.letter.form == "record"
        fits = len(waiting) < most and size + one.letter.size <= most_bytes
        if waiting and not (together and fits):
            yield waiting
            waiting, size = [], 0
        waiting.append(one)
        size += one.letter.size + 1  # the newline before the next
    if waiting:
        yield waiting


def _kind(one: Kept) -> tuple[str, ...]:
    letter = one.letter
    mendable = "whole" if letter.raw and letter.raw.strip() else "empty"
    return letter.key_id, letter.tenant, str(letter.replaying), letter.form, mendable


def _outcomes(letters: list[Kept], reply: httpx.Response) -> list[Outcome]:
    """What the edge answered, letter by letter."""
    if reply.status_code in (429, 503):
        return [Outcome(one.id, "waiting", _told(reply)) for one in letters]
    refused = _refused(reply)
    if refused is None:
        return [Outcome(one.id, "refused", _told(reply)) for one in letters]
    if len(letters) == 1 and refused:
        return [Outcome(letters[0].id, "refused", next(iter(refused.values())))]
    return [
        Outcome(one.id, "refused", refused[index]) if index in refused else Outcome(one.id, "replayed")
        for index, one in enumerate(letters)
    ]


def _refused(reply: httpx.Response) -> dict[int, str] | None:
    """Reasons by index, from whichever way in answered; None where the whole request was refused."""
    kind = reply.headers.get("content-type", "").partition(";")[0]
    if reply.is_success and kind == PROTOBUF:
        partial = ExportTraceServiceResponse.FromString(reply.content).partial_success
        return {0: partial.error_message} if partial.rejected_spans else {}
    if not reply.is_success and reply.status_code != 422:
        return None
    answer = reply.json()
    if partial_success := answer.get("partialSuccess"):
        return {0: str(partial_success.get("errorMessage"))}
    return {fault["index"]: fault["reason"] for fault in answer.get("rejected", ())}


def _told(reply: httpx.Response) -> str:
    if reply.headers.get("content-type") == PROTOBUF:
        return told(reply.content)
    try:
        return str(reply.json().get("detail", reply.reason_phrase))
    except ValueError:
        return f"{reply.status_code} {reply.reason_phrase}"
