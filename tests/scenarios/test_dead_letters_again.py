"""A sender's mistake, the operator's mending, and the same events in the store: by commands alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from monitor.cli import main
from tests.daemons import Daemon, stored_ids, until

AT = "2026-01-05T09:30:00Z"
NASTY = "\x1b[31mred\u202e"


def record(n: int, tool: str) -> bytes:
    event = {"event_type": "tool.executed", "agent_id": "a", "timestamp": AT, "event_id": f"e{n}"}
    return json.dumps({**event, "tool_name": tool}).encode()


def run(daemon: Daemon, *arguments: str, code: int = 0) -> str:
    """A command in this process, against the real daemon."""
    done = CliRunner().invoke(main, ["--config", str(daemon.config), *arguments])
    assert done.exit_code == code, done.output
    return done.stdout


def said(daemon: Daemon, *arguments: str, code: int = 0) -> Any:
    """The same, with --json, decoded."""
    return json.loads(run(daemon, *arguments, "--json", code=code))


def test_letters_are_listed_downloaded_and_replayed_once_the_limit_is_mended(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "data")
    config = daemon.config.read_text()
    daemon.config.write_text(config.replace("[edge]", "[edge]\nmax_name_bytes = 40"))
    daemon.start()
    try:
        lines = [record(1, "t" * 50), record(2, "fine"), NASTY.encode(), record(3, "u" * 50)]
        assert len(daemon.client.send(lines, live=True)["rejected"]) == 3

        listed = said(daemon, "deadletters", "list")
        assert [letter["index"] for letter in listed] == [3, 2, 0]
        assert [one["id"] for one in said(daemon, "deadletters", "list", "--reason", "JSON")] == [
            listed[1]["id"]
        ]
        assert said(daemon, "deadletters", "list", "--since", "2030-01-01") == []
        shown = run(daemon, "deadletters", "show", listed[1]["id"]) + run(daemon, "deadletters", "list")
        assert "red" in shown
        assert not {"\x1b", "\u202e"} & set(shown)
        out = tmp_path / "letters.ndjson"
        run(daemon, "deadletters", "download", "-o", str(out))
        assert [json.loads(one)["id"] for one in out.read_bytes().splitlines()] == [
            one["id"] for one in listed
        ]
        run(daemon, "deadletters", "download", "--raw", "--reason", "tool_name", "-o", str(out))
        assert out.read_bytes().splitlines() == [record(3, "u" * 50), record(1, "t" * 50)]
        told = "3 (`watchkeeper deadletters list`)"
        status = until(
            lambda: told in (page := run(daemon, "status")) and page, "a heartbeat that counts them"
        )
        assert "refused" in status

        daemon.stop()
        daemon.config.write_text(config)
        daemon.start()
        run(daemon, "deadletters", "replay", code=2)
        outcomes = said(daemon, "deadletters", "replay", "--all", code=1)
        assert sorted(one["state"] for one in outcomes) == ["refused", "replayed", "replayed"]
        assert said(daemon, "deadletters", "replay", "--reason", "tool_name") == []
        again = said(daemon, "deadletters", "replay", listed[0]["id"])
        assert [one["state"] for one in again] == ["already"]
        (left,) = [one for one in said(daemon, "deadletters", "list") if one["replayed_at"] is None]
        assert left["id"] == listed[1]["id"]
        assert "dead letters are replayed" in daemon.log.read_text()
    finally:
        daemon.stop()
    assert stored_ids(daemon.data) == ["e1", "e2", "e3"]
