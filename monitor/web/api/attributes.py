"""The names of attributes in the stored history, over the API."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from monitor.store.fault import StoreError
from monitor.web.auth import ApiRead
from monitor.web.context import InConsole
from monitor.web.problems import Problem

router = APIRouter(prefix="/api/v1/attributes", tags=["events"])


class AttributeNames(BaseModel):
    """Every name that an event carries as an attribute, in order."""

    items: list[str]


@router.get("")
async def attributes(console: InConsole, caller: ApiRead) -> AttributeNames:
    """What rules may name beyond columns, as far as events have carried it."""
    try:
        return AttributeNames(items=await console.readers.attribute_keys(caller.tenant))
    except StoreError:
        raise Problem(503, "the event store does not answer; see the storing fault in status") from None
