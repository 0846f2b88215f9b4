"""docs/sending.md is held to what the edge does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monitor.sources.dialect_files import load_mappings
from monitor.sources.keys import SCOPES

DOC = (Path(__file__).parents[2] / "docs" / "sending.md").read_text()
DIALECTS = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text()


def test_the_event_of_the_page_is_answered_as_the_page_says(edge: Any) -> None:
    (sent,) = re.findall(r"-d '\n(\{.*?\})'\n", DOC, re.DOTALL)
    (answer,) = re.findall(r"```json\n(.*?)\n```", DOC, re.DOTALL)
    reply = edge.post(sent, content_type="application/x-www-form-urlencoded")  # as curl -d says
    assert reply.json() == json.loads(answer)
    assert edge.stored()[0]["attributes"] == {"currency": "EUR", "watchkeeper.clock": "ancient"}


def test_the_agent_of_the_page_is_watched(edge: Any, tmp_path: Path) -> None:
    pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")
    (program,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    shown = dict(re.findall(r'export (OTEL_\w+)="?([^"\n]*)"?\n', DOC))
    assert shown.keys() == {"OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"}
    environment = {name: value.replace("$KEY", edge.key) for name, value in shown.items()}
    environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = edge.url
    subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        cwd=tmp_path,
        check=True,
        timeout=100,
    )
    events = edge.stored()
    assert {event["agent_id"] for event in events} == {"helpdesk/refund-agent"}
    assert "lookup_order" in {event.get("tool_name") for event in events}
    assert events[0]["task_goal"] == "Is order 7 paid?"


def test_the_pages_name_every_operation_that_yields_events_and_every_scope() -> None:
    shown = {line.split(" | ")[0]: line for line in DIALECTS.splitlines() if line.startswith("| `")}
    for mapping in load_mappings():
        row = shown[f"| `{mapping.name}`"]
        for operation in mapping.operations:
            if operation.events:
                assert not [name for name in operation.names if f"`{name}`" not in row]
    assert all(f"`{scope}`" in DOC for scope in SCOPES)
