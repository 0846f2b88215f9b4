"""What pages and API ask of dashboards: which there are, a panel's rows, its picture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Query
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from monitor.dashboards.chart import chart, page_chart, picture
from monitor.dashboards.definition import Dashboard, Panel
from monitor.dashboards.loading import Dashboards, dashboards
from monitor.dashboards.png import DrawingError, draw
from monitor.dashboards.querying import PanelError, Rows, ask
from monitor.dashboards.window import Window
from monitor.store.state import now
from monitor.web.auth import Caller
from monitor.web.context import Console
from monitor.web.problems import Problem

Span = Literal["15m", "1h", "24h", "7d", "30d"]
Range = Annotated[Span, Query(alias="range")]
Tenant = Annotated[str | None, Query(min_length=1, max_length=200)]
Theme = Literal["light", "dark"]
LATEST: Span = "24h"
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "the chart"}}


@dataclass(frozen=True)
class View:
    """What is looked at: a span of time that ends now, and one tenant or all."""

    window: Window
    tenant: str | None

    @classmethod
    def of(cls, caller: Caller, span: str, tenant: str | None) -> View:
        """A tenant's key sees its own tenant, whichever is asked for."""
        return cls(Window.ending(span, now()), caller.tenant or tenant)


@dataclass(frozen=True)
class Shown:
    """A panel with what it draws, or with why there is nothing."""

    panel: Panel
    rows: Rows
    problem: str = ""

    def spec(self, view: View) -> str:
        """Vega-Lite for the page, as JSON."""
        return json.dumps(page_chart(self.panel, self.rows.rows, view.window))


async def known(console: Console) -> Dashboards:
    """All dashboards, as their files are now."""
    return await run_in_threadpool(dashboards, console.settings)


async def named(console: Console, name: str) -> Dashboard:
    """One of them. Raises Problem."""
    found = (await known(console)).find(name)
    if found is None:
        raise Problem(404, "there is no such dashboard; the list says which there are")
    return found


async def panel_of(console: Console, name: str, panel: str) -> tuple[Dashboard, Panel]:
    """A dashboard and one of its panels. Raises Problem."""
    board = await named(console, name)
    found = board.panel(panel)
    if found is None:
        raise Problem(404, "this dashboard has no such panel")
    return board, found


async def shown(console: Console, panel: Panel, view: View) -> Shown:
    """The panel with its rows; what cannot be asked is told, and the other panels stand.

    One query of dashboards at a time: the store's second reader stays free for the other pages.
    """
    try:
        async with console.dashboards_turn:
            state = console.settings.state_file
            return Shown(panel, await ask(panel, view.window, view.tenant, console.readers, state))
    except PanelError as error:
        return Shown(panel, Rows(()), str(error))


async def png(console: Console, name: str, panel: str, view: View, theme: Theme) -> Response:
    """The panel as a picture. Raises Problem."""
    board, found = await panel_of(console, name, panel)
    drawn = await shown(console, found, view)
    if drawn.problem:
        raise Problem(503, drawn.problem)
    told = f"{board.title}, last {view.window.name}, times in UTC"
    spec = picture(chart(found, drawn.rows.rows, view.window), found.title, told, theme == "dark")
    try:
        return Response(await run_in_threadpool(draw, spec), media_type="image/png")
    except DrawingError as error:
        raise Problem(503, str(error)) from None
