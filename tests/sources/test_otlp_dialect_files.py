"""A site's own dialect files: they map what no shipped one knows, and a bad one is told at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from monitor.checking import check
from monitor.settings import Settings
from monitor.sources.dialect_files import SHIPPED, DialectError, load_mappings, read
from monitor.sources.dialect_set import Dialects
from tests.sources.spans import mapped, request, span

DOC = Path(__file__).parents[2] / "docs" / "dialects.md"

OWN = """
name: kitchen
version: 3
any_of: [kitchen.step]
operation: [kitchen.step]
agent: [kitchen.cook]
columns:
  tool_name: [kitchen.device]
operations:
  - names: [cook]
    events: [{type: tool.executed, at: end, columns: [tool_name]}]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "kitchen.yml"
    file.write_text(OWN)
    return file


def test_an_own_dialect_maps_what_was_unmapped(own: Path) -> None:
    said = span(1, kitchen__step="cook", kitchen__cook="ann", kitchen__device="oven")
    assert mapped(said) == []
    (event,) = mapped(said, own=(own,))
    assert (event["agent_id"], event["tool_name"]) == ("shop/ann", "oven")
    assert event["source"].startswith("kitchen/3")


def test_the_edge_uses_the_files_of_the_settings(own: Path, start_edge: Any) -> None:
    edge = start_edge(dialects=[own])
    edge.post(request(span(1, kitchen__step="cook")), "/v1/traces", content_type="application/json")
    assert [event["event_type"] for event in edge.stored()] == ["tool.executed"]


def test_a_file_with_a_shipped_name_replaces_the_shipped_one(own: Path) -> None:
    own.write_text(OWN.replace("name: kitchen", "name: mcp"))
    mappings = load_mappings([own])
    assert [mapping.name for mapping in mappings].count("mcp") == 1
    assert len(mappings) == len(SHIPPED)
    assert mappings[0].version == 3


FAULTS = {
    "no such column": (("tool_name:", "tool_nam:"), "tool_nam"),
    "a column that is ours": (("tool_name:", "event_id:"), "event_id"),
    "no such event type": (("tool.executed", "tool.done"), "tool.done"),
    "a column without a source": (("columns: [tool_name]", "columns: [target]"), "target"),
    "an unknown key": (("operation:", "operatoin:"), "operatoin"),
    "a broken pattern": (("[kitchen.device]", '[{field: name, pattern: "("}]'), "pattern"),
    "a source of nothing": (("[kitchen.device]", "[{path: [a]}]"), "source"),
    "no YAML": (("name: kitchen", "name: [kitchen"), "YAML"),
    "a value that the column has not": (
        ("columns: [tool_name]", "set: {policy_decision: maybe}"),
        "policy_decision",
    ),
    "nothing to know it by": (("any_of: [kitchen.step]", "any_of: []"), "any_of"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_file_is_told_with_its_name_and_place(own: Path, name: str) -> None:
    (old, new), told = FAULTS[name]
    assert old in OWN
    own.write_text(OWN.replace(old, new))
    with pytest.raises(DialectError, match=re.escape(str(own))) as error:
        Dialects.load([own])
    assert told in str(error.value)


def test_a_missing_file_and_two_of_one_name_are_told(own: Path, tmp_path: Path) -> None:
    with pytest.raises(DialectError, match="cannot be read"):
        Dialects.load([tmp_path / "nowhere.yml"])
    with pytest.raises(DialectError, match="another file"):
        Dialects.load([own, own])


def test_check_finds_a_bad_dialect(own: Path, tmp_path: Path) -> None:
    own.write_text("name: kitchen\n")
    settings = Settings(data=tmp_path / "data", edge={"dialects": [own]})
    found = check(settings)
    assert not found["ok"]
    assert any(str(own) in fault for fault in found["faults"])


def test_the_page_about_dialects_shows_a_file_that_works(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```yaml\n(name: .*?)```", DOC.read_text(), re.DOTALL)
    file = tmp_path / "shown.yml"
    file.write_text(shown)
    assert read(file).name
    assert all(f"`{field}`" in DOC.read_text() for field in read(file).__struct_fields__)


def test_the_file_of_the_page_maps_as_the_page_says(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```yaml\n(name: .*?)```", DOC.read_text(), re.DOTALL)
    file = tmp_path / "shown.yml"
    file.write_text(shown)
    events = mapped(
        span(1, shop__step="run", shop__agent="clerk", shop__case="c-7", shop__goal="sell"),
        span(2, 1, 0.1, shop__step="check", shop__rule="limit", shop__verdict="no"),
        span(3, 1, 0.2, shop__step="tool", shop__tool="till", shop__output='{"result": "paid"}'),
        span(4, 1, 0.3, shop__step="heartbeat"),
        own=(file,),
    )
    told = {event["event_type"]: event for event in events}
    assert told.keys() == {
        "task.created",
        "policy.checked",
        "tool.requested",
        "tool.executed",
        "task.completed",
    }
    assert {(event["agent_id"], event["session_id"]) for event in events} == {("shop/clerk", "c-7")}
    assert (told["policy.checked"]["policy_decision"], told["policy.checked"]["outcome"]) == (
        "deny",
        "blocked",
    )
    assert told["tool.executed"]["tool_result"] == "paid"
