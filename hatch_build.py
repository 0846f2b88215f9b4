"""Build hook: take htmx out of the build requirement ``django-htmx``.

JavaScript is never checked in and never fetched at run time. The copy lands in a folder
that git ignores, for wheels (shipped as an artifact) and for editable installs alike.
"""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "static/django_htmx/htmx-2.min.js"
TARGET = "monitor/web/static/vendor/htmx.min.js"


class VendorHook(BuildHookInterface[Any]):
    """Copies the web console's one library beside its own assets."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copy before the files are collected. Raises FileNotFoundError where htmx is not there."""
        target = Path(self.root, TARGET)
        target.parent.mkdir(parents=True, exist_ok=True)
        with as_file(files("django_htmx").joinpath(SOURCE)) as source:
            shutil.copyfile(source, target)
        build_data["artifacts"].append(TARGET)
