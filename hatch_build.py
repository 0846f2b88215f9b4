"""Build hook: take htmx out of ``django-htmx`` and Vega out of ``vl-convert-python``.

JavaScript is never checked in and never fetched at run time. The copies land in a folder
that git ignores, for wheels (shipped as artifacts) and for editable installs alike.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import vl_convert
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "monitor/web/static/vendor"
HTMX = "static/django_htmx/htmx-2.min.js"


class VendorHook(BuildHookInterface[Any]):
    """Puts the web console's libraries beside its own assets."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write before the files are collected. Raises FileNotFoundError where htmx is not there."""
        folder = Path(self.root, FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        assets = {
            "htmx.min.js": files("django_htmx").joinpath(HTMX).read_bytes(),
            "vega.min.js": vl_convert.javascript_bundle().encode(),
        }
        for name, content in assets.items():
            (folder / name).write_bytes(content)
            build_data["artifacts"].append(f"{FOLDER}/{name}")
