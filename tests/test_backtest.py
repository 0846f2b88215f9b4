"""`watchkeeper backtest` as a user types it, on recorded sessions of an imaginary clerk."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detectors.evaluate import Board, Label, measured
from detectors.registry import LEARNERS
from monitor.backtest import LabelsError, read_labels
from monitor.moments import moment
from tests.detectors.provenance.test_provenance import LATER, hijacked, history, pays
from tests.detectors.streams import HOUR
from tests.test_cli import watchkeeper

ATTACKS = 10
TWINS = 30


def recorded(file: Path, events: Iterable[Any]) -> Path:
    """A file of events as the wire has them."""
    told = sorted(events, key=lambda one: one.timestamp)
    plain = [
        {
            k: v
            for k, v in msgspec.to_builtins(one).items()
            if v is not None and k not in {"tenant", "identity"}
        }
        for one in told
    ]
    file.write_text("".join(json.dumps(one) + "\n" for one in plain))
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("backtest")
    late = [hijacked(f"bad{n}", LATER + 3 * n * HOUR) for n in range(ATTACKS)]
    late += [pays(f"good{n}", LATER + (n + 0.5) * HOUR, 1 + n % 8) for n in range(TWINS)]
    recorded(made / "events.ndjson", [*history(), *(one for story in late for one in story)])
    labels = [("session_id", "label", "first_malicious_event_id")]
    labels += [(f"bad{n}", "attack", f"bad{n}-3") for n in range(ATTACKS)]
    labels += [(f"good{n}", "benign", "") for n in range(TWINS)] + [("s1", "unsure", "")]
    (made / "labels.csv").write_text("".join(",".join(row) + "\n" for row in labels))
    return made


def until() -> str:
    from datetime import timedelta

    from tests.builders import START

    return (START + timedelta(seconds=LATER - HOUR)).isoformat()


def backtest(folder: Path, *more: str) -> Any:
    done = watchkeeper("backtest", "events.ndjson", *more, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_reports_what_would_have_alerted_and_how_that_stands_against_labels(folder: Path) -> None:
    said = backtest(
        folder, "--labels", "labels.csv", "--warm-up-until", until(), "--false-alert-rate", "0.02"
    )
    assert said["sessions"] == 120 + ATTACKS + TWINS
    assert said["sessions_counted"] == ATTACKS + TWINS
    assert said["alerts"]["by_agent"] == {"clerk": said["alerts"]["sessions"]}
    assert said["alerts"]["by_detector"]["provenance"] >= ATTACKS
    known = said["labels"]
    assert (known["attacks"], known["harmless"], known["left_out"]) == (ATTACKS, TWINS, 0)
    found = known["detectors"]["provenance"]
    assert found["recall"]["value"] == 1.0
    assert found["recall"]["low"] < 0.8
    assert found["false_positive_rate"]["value"] <= 0.1
    assert found["auc"] > 0.95
    assert found["at_or_before_first_malicious"]["value"] == 1.0
    assert found["delay_calls"]["median"] == 0
    assert set(known["detectors"]) == {"sigma", *LEARNERS, "combined"}


def test_scores_have_a_row_for_each_session_and_detector(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    backtest(folder, "--scores", str(out), "--false-alert-rate", "0.02", "--detectors", "provenance,sigma")
    rows = list(csv.DictReader(out.open()))
    assert list(rows[0]) == [
        *("session_id", "detector", "score", "p_value", "alerted", "first_event_id", "first_event_time")
    ]
    assert len(rows) == (120 + ATTACKS + TWINS) * 3
    assert {row["detector"] for row in rows} == {"provenance", "sigma", "combined"}
    of = {(row["session_id"], row["detector"]): row for row in rows}
    assert of["bad1", "provenance"]["alerted"] == "true"
    assert of["bad1", "provenance"]["first_event_id"] == "bad1-3"
    assert of["good1", "provenance"]["alerted"] == "false"
    assert of["good1", "provenance"]["first_event_id"] == "good1-3"
    assert float(of["bad1", "combined"]["score"]) > float(of["good1", "combined"]["score"])


def test_the_same_files_give_the_same_report_and_scores(folder: Path, tmp_path: Path) -> None:
    said = [backtest(folder, "--scores", str(tmp_path / f"{n}.csv")) for n in range(2)]
    assert {**said[0], "seconds": 0} == {**said[1], "seconds": 0}
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()


def test_a_budget_a_day_becomes_a_rate_at_the_sessions_a_day_of_the_files(folder: Path) -> None:
    said = backtest(folder, "--budget-per-day", "1")
    per_day = said["sessions"] / said["days"]
    assert said["false_alert_rate"] == pytest.approx(1 / per_day, rel=0.02)


def test_the_table_says_the_same_for_people(folder: Path) -> None:
    done = watchkeeper("backtest", "events.ndjson", "--labels", "labels.csv", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "160 sessions" in done.stdout
    assert "provenance" in done.stdout
    assert "10 attacks, 30 harmless" in done.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--detectors", "clairvoyance"), "there are sigma, provenance"),
        (("--warm-up-until", "soon"), "is neither a time"),
        (("--false-alert-rate", "2"), "0<x<=1"),
        (("--false-alert-rate", ".01", "--budget-per-day", "1"), "not both"),
    ],
)
def test_wrong_options_are_named(folder: Path, given: tuple[str, ...], said: str) -> None:
    done = watchkeeper("backtest", "events.ndjson", *given, cwd=folder)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_a_bad_line_is_named_and_the_rest_judged(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "bad.ndjson"
    file.write_bytes(b"nonsense\n" + (folder / "events.ndjson").read_bytes())
    done = watchkeeper("backtest", str(file), "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert f"{file}:1: " in done.stderr
    assert json.loads(done.stdout)["sessions"] == 160


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "must name session_id and label"),
        ("session_id,label\ns1,maybe\n", "no label is one of"),
        ("", "it names nothing"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(LabelsError, match=said):
        read_labels(file)


def test_what_nobody_scored_still_ranks_last_and_counts() -> None:
    board = Board(["provenance"], {"provenance": 1.0})
    assert board.rows() == []
    said = measured(board, {"s": Label(True)}, 0)
    assert said["combined"]["recall"] == {"value": None, "low": None, "high": None, "count": 0, "of": 0}
    assert said["combined"]["auc"] is None


def test_a_time_without_offset_is_utc() -> None:
    assert moment("2026-01-15") == moment("2026-01-15T00:00:00Z") == moment("2026-01-15T01:00:00+01:00")
