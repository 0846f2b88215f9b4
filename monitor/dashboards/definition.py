"""What a dashboard file may say. Whatever it says beyond that is an error, never ignored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from monitor.dashboards.statements import fault_of

Source = Literal["events", "alerts"]
"""``events`` is ClickHouse, ``alerts`` the state database."""

MARKS = frozenset({"area", "bar", "circle", "line", "point", "rect", "rule", "square", "tick", "trail"})
"""Marks of Vega-Lite without those that load pictures or write text of their own."""

REACHING = frozenset({"href", "url", "expr", "signal", "labelExpr", "loader"})
"""Words of Vega-Lite that would follow a link or run an expression."""

Slug = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
Title = Annotated[str, Field(min_length=1, max_length=120)]
Column = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]


class Part(BaseModel):
    """A piece of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Channel(Part):
    """One channel of an encoding, in Vega-Lite's words. ``field`` is a column of the query."""

    field: Column | None = None
    type: Literal["quantitative", "temporal", "nominal", "ordinal"] | None = None
    title: str | None = None
    value: str | float | None = None
    aggregate: Literal["sum", "mean", "median", "min", "max", "count"] | None = None
    axis: dict[str, Any] | None = None
    legend: dict[str, Any] | None = None
    scale: dict[str, Any] | None = None
    sort: str | list[str] | dict[str, Any] | None = None
    stack: bool | Literal["zero", "normalize", "center"] | None = None
    format: str | None = None

    @model_validator(mode="after")
    def _something(self) -> Channel:
        if self.value is None and self.type is None and (self.field or self.aggregate):
            raise ValueError("a type is missing: quantitative, temporal, nominal or ordinal")
        if self.field is None and self.value is None and self.aggregate != "count":
            raise ValueError("it needs a field or a value")
        if word := next((word for word in _words(self.model_dump()) if word in REACHING), None):
            raise ValueError(f"{word!r} is not allowed here")
        return self


class Encoding(Part):
    """The channels that a panel may use."""

    x: Channel | None = None
    x2: Channel | None = None
    y: Channel | None = None
    y2: Channel | None = None
    xOffset: Channel | None = None  # noqa: N815 - Vega-Lite's own words
    yOffset: Channel | None = None  # noqa: N815
    color: Channel | None = None
    opacity: Channel | None = None
    size: Channel | None = None
    shape: Channel | None = None
    detail: Channel | None = None
    order: Channel | None = None
    tooltip: list[Channel] = Field(default_factory=list, max_length=12)

    @model_validator(mode="after")
    def _drawable(self) -> Encoding:
        if self.x is None or self.y is None:
            raise ValueError("x and y are needed")
        return self

    def channels(self) -> Iterator[Channel]:
        """Every channel that is said."""
        for name in type(self).model_fields:
            said = getattr(self, name)
            yield from said if isinstance(said, list) else () if said is None else (said,)


class Panel(Part):
    """One chart: a query whose rows are drawn. ``height`` in pixels; a bar to a row needs none."""

    name: Slug
    title: Title
    description: str = Field("", max_length=600)
    source: Source
    query: str = Field(min_length=1, max_length=20_000)
    mark: str | dict[str, Any]
    encoding: Encoding
    height: int | None = Field(None, ge=60, le=800)
    wide: bool = False

    @field_validator("mark")
    @classmethod
    def _known_mark(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        kind = value if isinstance(value, str) else value.get("type")
        if kind not in MARKS:
            raise ValueError(f"{kind!r} is no mark for panels; use one of {', '.join(sorted(MARKS))}")
        if word := next((word for word in _words(value) if word in REACHING), None):
            raise ValueError(f"{word!r} is not allowed here")
        return value

    @model_validator(mode="after")
    def _askable(self) -> Panel:
        if (fault := fault_of(self.source, self.query)) is not None:
            raise ValueError(f"query: {fault}")
        return self

    @property
    def kind(self) -> str:
        """The mark's type."""
        return self.mark if isinstance(self.mark, str) else str(self.mark["type"])

    @property
    def fields(self) -> set[str]:
        """The columns that the encoding draws."""
        return {channel.field for channel in self.encoding.channels() if channel.field}


class Dashboard(Part):
    """A file. Its name is the file's."""

    name: Slug
    title: Title
    description: str = Field("", max_length=600)
    order: int = Field(100, description="place in the list; the same numbers stand by title")
    panels: list[Panel] = Field(min_length=1, max_length=24)

    @field_validator("panels")
    @classmethod
    def _told_apart(cls, value: list[Panel]) -> list[Panel]:
        names = [panel.name for panel in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two panels have the name {twice[0]!r}")
        return value

    def panel(self, name: str) -> Panel | None:
        """The panel with this name."""
        return next((panel for panel in self.panels if panel.name == name), None)


def _words(value: Any) -> Iterator[str]:
    """The keys in a nest of dictionaries and lists."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)
