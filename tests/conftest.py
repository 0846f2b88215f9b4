"""What all tests share: which optional parts must not be skipped here."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

REQUIRED = frozenset(filter(None, os.environ.get("TESTS_REQUIRE", "").split(",")))
"""Markers (``browser``, ``server``, later ``broker``) whose tests must run, not skip."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and REQUIRED.intersection(mark.name for mark in item.iter_markers()):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and TESTS_REQUIRE says it must run: {report.longrepr}"
    return report
