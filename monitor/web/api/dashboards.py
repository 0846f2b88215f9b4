"""Dashboards over the API: what they show, their rows and their pictures."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel
from starlette.responses import Response

from monitor.dashboards.definition import Dashboard, Source
from monitor.web.auth import ApiRead
from monitor.web.context import InConsole
from monitor.web.dashboards import (
    LATEST,
    PNG,
    Range,
    Shown,
    Tenant,
    Theme,
    View,
    known,
    named,
    png,
    shown,
)

router = APIRouter(prefix="/api/v1/dashboards", tags=["dashboards"])

Name = Annotated[str, Path(min_length=1, max_length=60)]


class PanelRows(BaseModel):
    """A panel with its rows. Times are microseconds; ``cut`` where there were more rows than are given.

    ``problem`` says why there are none, where they could not be asked for.
    """

    name: str
    title: str
    description: str
    source: Source
    query: str
    mark: str | dict[str, Any]
    encoding: dict[str, Any]
    rows: list[dict[str, Any]]
    cut: bool
    problem: str

    @classmethod
    def of(cls, drawn: Shown) -> PanelRows:
        """From what the console asked."""
        said = drawn.panel.model_dump(
            exclude_unset=True, include={"name", "title", "source", "query", "mark", "encoding"}
        )
        return cls(
            **said,
            description=drawn.panel.description,
            rows=list(drawn.rows.rows),
            cut=drawn.rows.cut,
            problem=drawn.problem,
        )


class DashboardLine(BaseModel):
    """A dashboard of the list: its name, and the names of its panels."""

    name: str
    title: str
    description: str
    panels: list[str]

    @classmethod
    def of(cls, board: Dashboard) -> DashboardLine:
        """From the file."""
        names = [panel.name for panel in board.panels]
        return cls(name=board.name, title=board.title, description=board.description, panels=names)


class DashboardList(BaseModel):
    """The dashboards that can be shown, and what is wrong with other files."""

    items: list[DashboardLine]
    faults: list[str]


class DashboardRows(BaseModel):
    """A dashboard with the rows of every panel, from ``since`` up to ``until``, in microseconds."""

    name: str
    title: str
    description: str
    since: int
    until: int
    step: int
    panels: list[PanelRows]


@router.get("")
async def list_dashboards(console: InConsole, _caller: ApiRead) -> DashboardList:
    """Every dashboard, shipped or the site's own."""
    found = await known(console)
    return DashboardList(items=[DashboardLine.of(board) for board in found.all], faults=list(found.faults))


@router.get("/{name}")
async def show_dashboard(
    name: Name, console: InConsole, caller: ApiRead, span: Range = LATEST, tenant: Tenant = None
) -> DashboardRows:
    """One dashboard: its definition, and the rows that it draws."""
    board = await named(console, name)
    view = View.of(caller, span, tenant)
    panels = [PanelRows.of(await shown(console, panel, view)) for panel in board.panels]
    window = view.window
    return DashboardRows(
        name=board.name,
        title=board.title,
        description=board.description,
        since=window.since,
        until=window.until,
        step=window.step,
        panels=panels,
    )


@router.get("/{name}/{panel}.png", response_class=Response, responses=PNG)
async def draw_panel(
    name: Name,
    panel: Name,
    console: InConsole,
    caller: ApiRead,
    span: Range = LATEST,
    tenant: Tenant = None,
    theme: Theme = "light",
) -> Response:
    """One panel as a PNG."""
    return await png(console, name, panel, View.of(caller, span, tenant), theme)
