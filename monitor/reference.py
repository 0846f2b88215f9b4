"""Reference pages written from the code: docs/events.md and docs/settings.md.

``python -m monitor.reference`` writes them; a test holds them equal to the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from monitor.events import COLUMNS, EVENT_TYPES
from monitor.settings import PACKAGE, Settings

NOTICE = "<!-- Written by `make docs` from {source}; edit there. -->\n"


def events_page() -> str:
    """docs/events.md."""
    lines = [
        NOTICE.format(source="monitor/events.py"),
        "# Events\n",
        "One flat row per event: the same names on the wire, in rules, in ClickHouse and here.",
        "A column may be absent unless it is marked required. Unknown keys go to `attributes`.\n",
        "## Event types\n",
        "| event_type | meaning |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in EVENT_TYPES.items()),
        "\n## Columns\n",
        "| column | type | meaning | OpenTelemetry attributes (usable in rules) |",
        "|---|---|---|---|",
    ]
    for column in COLUMNS:
        kind = (
            column.kind.label if not column.values or column.name == "event_type" else "/".join(column.values)
        )
        required = ", required" if column.required and column.name != "event_id" else ""
        otel = ", ".join(f"`{name}`" for name in column.otel)
        lines.append(f"| `{column.name}` | {kind}{required} | {column.meaning} | {otel} |")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """docs/settings.md."""
    lines = [
        NOTICE.format(source="monitor/settings.py"),
        "# Settings\n",
        "A TOML file (`--config FILE` or `WATCHKEEPER_CONFIG`), and the environment, which wins:",
        "`WATCHKEEPER_EDGE__PORT=4319` sets `port` in `[edge]`. An unknown key is an error.",
        "`watchkeeper check` prints what is in force, with secrets masked.\n",
        "| setting | default | meaning |",
        "|---|---|---|",
        *_rows(Settings, ""),
    ]
    return "\n".join(lines) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = _section(field)
        if inner is None:
            yield f"| `{prefix}{name}` | {_default(field)} | {field.description} |"
        else:
            yield from _rows(inner, f"{prefix}{name}.")


def _section(field: FieldInfo) -> type[BaseModel] | None:
    for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        value = field.get_default(call_default_factory=True)
        return "the shipped rules" if value and isinstance(value[0], Path) else f"`{value}`"
    return "" if field.default is None else f"`{field.default}`"


def main() -> None:
    """Write both pages."""
    docs = PACKAGE.parent / "docs"
    (docs / "events.md").write_text(events_page())
    (docs / "settings.md").write_text(settings_page())


if __name__ == "__main__":
    main()
