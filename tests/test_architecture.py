"""The arrows of the house: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"polars", "pyarrow", "numpy", "sqlalchemy", "fastapi", "clickhouse_connect", "chdb", "sigma", "rich"}
OUTSIDE = {
    "socket",
    "time",
    "requests",
    "httpx",
    "random",
    "sqlite3",
    "subprocess",
    "threading",
    "asyncio",
    "pickle",
}


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", modules("detectors"), ids=lambda f: str(f.relative_to(ROOT)))
def test_detectors_are_pure(file: Path) -> None:
    names = list(imports(file))
    assert not [name for name in names if name.split(".")[0] == "monitor"]
    assert not [name for name in names if name.split(".")[0] in OUTSIDE]


OUTERMOST = {"web", "cli.py", "commands"}
INWARD = [f for f in modules("monitor") if f.relative_to(ROOT / "monitor").parts[0] not in OUTERMOST]


@pytest.mark.parametrize("file", INWARD, ids=lambda f: str(f.relative_to(ROOT)))
def test_nothing_imports_the_command_line_and_only_composition_imports_the_web(file: Path) -> None:
    composition = {"daemon.py", "demo.py", "processes/console.py"}
    names = list(imports(file))
    assert not [name for name in names if name == "monitor.cli" or name.startswith("monitor.commands")]
    if str(file.relative_to(ROOT / "monitor")) not in composition:
        assert not [name for name in names if name.startswith("monitor.web")]


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from monitor.cli import main;"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0;"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "[]"
