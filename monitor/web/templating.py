"""The Jinja environment: autoescape always on, and the filters that templates use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from monitor.web import formats
from monitor.web.safe import safe_plain, safe_text

HERE = Path(__file__).parent
STATIC = HERE / "static"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        safe_text=safe_text,
        safe_plain=safe_plain,
        when=formats.when,
        ago=formats.ago,
        exact=formats.exact,
        clock=formats.clock,
        span=formats.span,
        number=formats.number,
        readable=formats.readable,
        grid=grid,
        odds=formats.odds,
    )
    environment.globals["asset"] = asset
    return environment


@cache
def asset(name: str) -> str:
    """The address of a static file, with a hash of its content, so that it may be cached for good."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()
    return f"/static/{name}?v={digest[:12]}"


MOST_ROWS = 100
MOST_COLUMNS = 12


@dataclass(frozen=True)
class Grid:
    """A table: ``rows`` have one cell for each of ``columns``, None where there is nothing."""

    columns: list[str]
    rows: list[list[Any]]


def grid(value: Any) -> Grid:
    """What a process tells about itself, as a table: a list of records, or records (or values) by name."""
    records: list[Mapping[Any, Any]]
    if isinstance(value, Mapping):
        records = [
            {"name": name, **(item if isinstance(item, Mapping) else {"value": item})}
            for name, item in value.items()
        ]
    else:
        records = [item if isinstance(item, Mapping) else {"value": item} for item in value]
    columns = list(dict.fromkeys(str(name) for record in records for name in record))[:MOST_COLUMNS]
    return Grid(columns, [[record.get(name) for name in columns] for record in records[:MOST_ROWS]])


def render(template: str, **values: Any) -> str:
    """A template as text. Raises jinja2.UndefinedError where it names what it was not given."""
    return _environment().get_template(template).render(**values)
