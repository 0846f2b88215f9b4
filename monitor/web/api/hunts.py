"""Hunts over the API: a rule over stored history, told line by line while it runs."""

from __future__ import annotations

import queue
import threading
import time
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
from monitor.hunting import Result, hunt
from monitor.store.fault import StoreError
from monitor.web.auth import ApiRead
from monitor.web.context import Console, InConsole
from monitor.web.problems import Problem

router = APIRouter(prefix="/api/v1/hunts", tags=["hunts"])

SECONDS = 3600
"""Longest time of one statement."""

PULSE = 1.0
"""Seconds after which an empty line is sent where there is nothing to say."""

PATIENCE = 30.0
"""Seconds that a hunt goes on although its answer is not read."""

_RUNNING = threading.Lock()
"""One hunt at a time: it reads much, and nobody's page should wait for two."""

Microseconds = Annotated[int, Field(ge=0, lt=253_402_300_800_000_000, description="before the year 10000")]


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
async def hunts(wanted: Wanted, caller: ApiRead, console: InConsole) -> StreamingResponse:
    """NDJSON: ``{"progress": 0..1}`` while it goes on, then ``{"result": ...}`` or ``{"error": ...}``.

    Empty lines say that it is at work.
    """
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
    hunting = Hunting(console, rules, wanted, caller.tenant)
    threading.Thread(target=hunting.run, name="hunt", daemon=True).start()
    return StreamingResponse(hunting.told(), media_type="application/x-ndjson")


class LeftError(Exception):
    """Nobody waits for the answer any more."""


class Hunting:
    """One hunt at work, in a thread of its own; it ends soon after its reader has gone."""

    def __init__(self, console: Console, rules: RuleSet, wanted: Wanted, tenant: str | None) -> None:
        self._console = console
        self._rules = rules
        self._wanted = wanted
        self._tenant = tenant
        self._said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._heard = time.monotonic()

    def run(self) -> None:
        """Hunt, and free the place for the next."""
        try:
            self._said.put({"result": msgspec.to_builtins(self._found())})
        except LeftError:
            pass
        except (StoreError, ValueError) as error:
            self._said.put({"error": str(error)})
        except Exception as error:
            self._said.put({"error": f"the hunt failed: {type(error).__name__}"})
            raise
        finally:
            _RUNNING.release()
            self._said.put(None)

    def _found(self) -> Result:
        rule = self._rules.get(self._wanted.rule)
        assert rule is not None
        bounds = self._wanted.since, self._wanted.until
        with self._console.readers.alone(SECONDS) as client:
            return hunt(client, self._rules, rule, *bounds, self._tenant, self._advance)

    def _advance(self, part: float) -> None:
        if time.monotonic() - self._heard > PATIENCE:
            raise LeftError
        self._said.put({"progress": round(part, 4)})

    def told(self) -> Iterator[bytes]:
        """The lines of the answer; empty ones while there is nothing to say, to notice a reader that left."""
        while True:
            self._heard = time.monotonic()
            try:
                one = self._said.get(timeout=PULSE)
            except queue.Empty:
                yield b"\n"
                continue
            if one is None:
                return
            yield msgspec.json.encode(one) + b"\n"
