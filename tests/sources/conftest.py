"""Edges that live as long as a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sources.live import LiveEdge


@pytest.fixture
def start_edge(tmp_path: Path) -> Iterator[Callable[..., LiveEdge]]:
    """Starts edges on the test's own folder; all are stopped at its end."""
    running: list[LiveEdge] = []

    def start(folder: str = "data", **limits: Any) -> LiveEdge:
        running.append(LiveEdge(tmp_path / folder, **limits))
        return running[-1]

    yield start
    for edge in running:
        if edge.running:
            edge.stop()


@pytest.fixture
def edge(start_edge: Callable[..., LiveEdge]) -> LiveEdge:
    """One live edge with the default settings."""
    return start_edge()
