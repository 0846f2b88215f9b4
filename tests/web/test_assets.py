"""JavaScript comes from a package at build time, and everything a page names is there."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
import vl_convert

from monitor.web.templating import STATIC, asset

ROOT = Path(__file__).parents[2]


def test_the_build_has_put_htmx_beside_the_other_assets() -> None:
    built = STATIC / "vendor" / "htmx.min.js"
    assert built.is_file(), "run `make install`: the build hook copies htmx"
    packaged = files("django_htmx").joinpath("static/django_htmx/htmx-2.min.js").read_bytes()
    assert built.read_bytes() == packaged
    assert b'version:"2.' in packaged


def test_the_build_has_put_vega_there_and_only_dashboards_load_it() -> None:
    assert (STATIC / "vendor" / "vega.min.js").read_text() == vl_convert.javascript_bundle()
    templates = (STATIC.parent / "templates").glob("*.html")
    assert [file.name for file in templates if "vega" in file.read_text()] == ["dashboard.html"]


def test_every_asset_that_a_template_names_exists() -> None:
    templates = "".join(file.read_text() for file in (STATIC.parent / "templates").glob("*.html"))
    named = set(re.findall(r"asset\('([^']+)'\)", templates))
    own = {"favicon.svg", "console.css", "console.js", "dashboard.js"}
    assert named == own | {"vendor/htmx.min.js", "vendor/vega.min.js"}
    assert all(asset(name).startswith(f"/static/{name}?v=") for name in named)


@pytest.mark.parametrize("file", sorted((STATIC.parent / "templates").glob("*.html")), ids=lambda f: f.name)
def test_no_template_holds_inline_script_or_style_or_another_host(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", text)
    assert not re.search(r"https?://", text)
