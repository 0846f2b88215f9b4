"""Dashboards: a page of panels, each asked for by itself, so that a slow one holds up no other."""

from __future__ import annotations

import json

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from monitor.dashboards.themes import config
from monitor.dashboards.window import STEPS
from monitor.web.auth import PageRead
from monitor.web.context import InConsole
from monitor.web.dashboards import (
    LATEST,
    Range,
    Tenant,
    Theme,
    View,
    known,
    panel_of,
    png,
    shown,
)
from monitor.web.pages.common import page
from monitor.web.problems import Problem

router = APIRouter(include_in_schema=False)

THEMES = json.dumps({"light": config(False), "dark": config(True)})


@router.get("/dashboards")
async def first(console: InConsole, _caller: PageRead) -> Response:
    """The first of the list."""
    found = await known(console)
    if not found.all:
        raise Problem(404, "no dashboard can be used; `watchkeeper check` says why")
    return RedirectResponse(f"/dashboards/{found.all[0].name}", 303)


@router.get("/dashboards/{name}")
async def dashboard(
    name: str, console: InConsole, caller: PageRead, span: Range = LATEST, tenant: Tenant = None
) -> HTMLResponse:
    """The page with a place for each panel."""
    found = await known(console)
    board = found.find(name)
    if board is None:
        raise Problem(404, "there is no such dashboard; the list says which there are")
    return page(
        "dashboard.html",
        caller,
        board=board,
        boards=found.all,
        faults=found.faults,
        spans=tuple(STEPS),
        span=span,
        tenant=tenant,
        themes=THEMES,
    )


@router.get("/dashboards/{name}/{panel}.png")
async def picture(
    name: str,
    panel: str,
    console: InConsole,
    caller: PageRead,
    span: Range = LATEST,
    tenant: Tenant = None,
    theme: Theme = "light",
) -> Response:
    """A panel as a PNG."""
    return await png(console, name, panel, View.of(caller, span, tenant), theme)


@router.get("/dashboards/{name}/{panel}")
async def panel(
    name: str,
    panel: str,
    console: InConsole,
    caller: PageRead,
    span: Range = LATEST,
    tenant: Tenant = None,
) -> HTMLResponse:
    """What stands in a panel's place: the chart's data and the same as a table."""
    _, found = await panel_of(console, name, panel)
    view = View.of(caller, span, tenant)
    drawn = await shown(console, found, view)
    times = {one.field for one in found.encoding.channels() if one.type == "temporal"}
    return page("panel.html", caller, shown=drawn, spec=drawn.spec(view), times=times)
