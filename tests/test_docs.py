"""The docs are held to the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from monitor.cli import main
from monitor.reference import events_page, settings_page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.mark.parametrize(("page", "written"), [("events.md", events_page), ("settings.md", settings_page)])
def test_reference_pages_are_those_of_the_code(page: str, written) -> None:  # type: ignore[no-untyped-def]
    assert (DOCS / page).read_text() == written(), "run `make docs`"


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    for name, command in main.commands.items():
        assert f"watchkeeper {name}" in readme or command.hidden, name


def test_every_command_and_option_explains_itself() -> None:
    def walk(command: click.Command, path: str) -> None:
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help or parameter.name in {"scopes", "help"}, f"{path} {parameter.name}"
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                walk(inner, f"{path} {name}")

    walk(main, "watchkeeper")


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_no_file_names_a_package_registry_or_a_folder_of_one_machine() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    suspicious = re.compile(
        rb"--(extra-)?index-url [^e]|/simple/|registry\.npm|pypi\.org|pythonhosted|/root/\.pyenv|/work/[a-z]"
    )
    found = [
        name
        for name in tracked
        if name
        and (file := ROOT / name).is_file()
        and file != Path(__file__)
        and suspicious.search(file.read_bytes())
    ]
    assert not found
