"""The dashboards in use: the shipped files and the site's own, read anew when one changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from monitor.dashboards.definition import Dashboard
from monitor.settings import Settings, shipped_dashboards

LARGEST_FILE = 256 << 10


class DashboardError(Exception):
    """A file is no dashboard; the message names file, panel and fault."""


@dataclass(frozen=True)
class Dashboards:
    """Those that can be shown, in the order of the list, and what is wrong with the others."""

    all: tuple[Dashboard, ...]
    faults: tuple[str, ...]

    def find(self, name: str) -> Dashboard | None:
        """The dashboard with this name."""
        return next((one for one in self.all if one.name == name), None)


def dashboards(settings: Settings) -> Dashboards:
    """The shipped ones and those of ``dashboards.folders``; a later file takes an earlier one's name.

    A file that cannot be used costs that file alone, and is told.
    """
    files: dict[str, Path] = {}
    faults: list[str] = []
    for folder in (shipped_dashboards(), *settings.dashboards.folders):
        if not folder.is_dir():
            faults.append(f"dashboards.folders: {folder} is no folder")
            continue
        for file in sorted(folder.iterdir()):
            if file.suffix in (".yml", ".yaml"):
                files[file.stem] = file
    found = []
    for file in files.values():
        try:
            found.append(read(file))
        except DashboardError as error:
            faults.append(str(error))
    return Dashboards(tuple(sorted(found, key=lambda one: (one.order, one.title))), tuple(faults))


def read(file: Path) -> Dashboard:
    """One file; parsed anew only when it has changed. Raises DashboardError."""
    try:
        seen = file.stat()
        return _read(file, seen.st_mtime_ns, seen.st_size)
    except OSError as error:
        raise DashboardError(f"{file}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=64)
def _read(file: Path, _changed_at: int, size: int) -> Dashboard:
    if size > LARGEST_FILE:
        raise DashboardError(f"{file}: longer than {LARGEST_FILE} bytes")
    try:
        said = yaml.load(file.read_text(encoding="utf-8"), _Strict)  # noqa: S506 - a safe loader
    except UnicodeDecodeError:
        raise DashboardError(f"{file}: not UTF-8") from None
    except yaml.YAMLError as error:
        raise DashboardError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(said, dict):
        raise DashboardError(f"{file}: it must be a mapping with title and panels")
    if "name" in said:
        raise DashboardError(f"{file}: a dashboard's name is its file's; take `name` out")
    try:
        return Dashboard(name=file.stem, **said)
    except (ValidationError, TypeError) as error:
        raise DashboardError("\n".join(_told(file, said, error))) from None


class _Strict(yaml.SafeLoader):
    """YAML without repeated keys: the second would silently win."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    found: dict[Any, Any] = {}
    for name, value in node.value:
        key = loader.construct_object(name, deep=True)
        if not isinstance(key, str) or key in found:
            what = "is there twice" if key in found else "is no word"
            raise yaml.MarkedYAMLError(problem=f"the key {key!r} {what}", problem_mark=name.start_mark)
        found[key] = loader.construct_object(value, deep=True)
    return found


_Strict.add_constructor("tag:yaml.org,2002:map", _mapping)


def _told(file: Path, said: dict[str, Any], error: Exception) -> Sequence[str]:
    """A line for each fault: the file, the panel by its name, the place and what is wrong."""
    if not isinstance(error, ValidationError):
        return [f"{file}: {error}"]
    lines = []
    for fault in error.errors(include_url=False, include_input=False):
        place = list(fault["loc"])
        where = str(file)
        if len(place) > 1 and place[0] == "panels" and isinstance(place[1], int):
            panel = said["panels"][place[1]]
            name = panel.get("name") if isinstance(panel, dict) else None
            where += f": panel {str(name)[:60]!r}" if name else f": panel {place[1] + 1}"
            place = place[2:]
        what = fault["msg"].removeprefix("Value error, ")
        what = "unknown key" if fault["type"] == "extra_forbidden" else what
        lines.append(f"{where}: {'.'.join(map(str, place))}: {what}" if place else f"{where}: {what}")
    return lines
