"""Hunts over the API: a rule over stored history, told line by line while it runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from detectors.sigma import RuleError, RuleSet
from detectors.sigma.load import load_texts
from monitor.events import rule_fields
from monitor.hunting import hunt
from monitor.store.fault import StoreError
from monitor.web.auth import MayRead
from monitor.web.context import Console, InConsole
from monitor.web.problems import Problem

router = APIRouter(prefix="/api/v1/hunts", tags=["hunts"])

SECONDS = 3600
"""Longest time of one statement."""

_RUNNING = threading.Lock()
"""One hunt at a time: it reads much, and nobody's page should wait for two."""

Microseconds = Annotated[int, Field(ge=0, le=2**62)]


class Wanted(BaseModel):
    """A rule, with the files that it stands in and needs (path and text), and the site's lists."""

    model_config = ConfigDict(extra="forbid")

    rule: str = Field(max_length=200, description="id or name")
    documents: list[tuple[str, str]] = Field(min_length=1, max_length=1_000)
    lists: dict[str, list[str | int | float]] = Field(default_factory=dict)
    pipelines: list[str] = Field(default_factory=list, max_length=20)
    since: Microseconds
    until: Microseconds


@router.post("", response_class=StreamingResponse)
async def hunts(wanted: Wanted, caller: MayRead, console: InConsole) -> StreamingResponse:
    """NDJSON: ``{"progress": 0..1}`` while it goes on, then ``{"result": ...}`` or ``{"error": ...}``."""
    try:
        rules = await run_in_threadpool(
            load_texts, wanted.documents, rule_fields(), wanted.lists, wanted.pipelines
        )
    except RuleError as error:
        raise Problem(422, f"the rules cannot be used: {error}"[:2000]) from None
    if rules.get(wanted.rule) is None:
        raise Problem(422, f"none of the documents has the rule {wanted.rule!r}")
    if not _RUNNING.acquire(blocking=False):
        raise Problem(429, "another hunt is running; wait for it to end", {"Retry-After": "5"})
    lines = _told(console, rules, wanted, caller.tenant)
    return StreamingResponse(lines, media_type="application/x-ndjson")


def _told(console: Console, rules: RuleSet, wanted: Wanted, tenant: str | None) -> Iterator[bytes]:
    said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            rule = rules.get(wanted.rule)
            assert rule is not None
            with console.readers.alone(SECONDS) as client:
                found = hunt(
                    client,
                    rules,
                    rule,
                    wanted.since,
                    wanted.until,
                    tenant,
                    lambda part: said.put({"progress": round(part, 4)}),
                )
            said.put({"result": msgspec.to_builtins(found)})
        except (StoreError, ValueError) as error:
            said.put({"error": str(error)})
        except Exception as error:
            said.put({"error": f"the hunt failed: {type(error).__name__}"})
            raise
        finally:
            _RUNNING.release()
            said.put(None)

    threading.Thread(target=run, name="hunt", daemon=True).start()
    while (one := said.get()) is not None:
        yield msgspec.json.encode(one) + b"\n"
