"""Dashboards: their files, their queries over real stores, their pages, and their pictures."""

from __future__ import annotations

import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from monitor.alerting.pictures import drawn_from
from monitor.dashboards import png
from monitor.dashboards.definition import Dashboard
from monitor.dashboards.loading import DashboardError, dashboards, read
from monitor.dashboards.png import DrawingError, draw
from monitor.dashboards.querying import PanelError, ask_state, harmless
from monitor.dashboards.themes import PALETTES
from monitor.dashboards.window import STEPS, UNITS, Window
from monitor.events import EVENT_TYPES, arrow_batch
from monitor.settings import Settings, shipped_dashboards
from monitor.store.clickhouse import EventStore, placed
from monitor.store.state import Alert, AlertChange, now
from monitor.web.filters import RANGES
from tests.builders import event
from tests.web.conftest import Browser, key
from tests.web.seeding import HOSTILE, SECOND, Stand, finding

SHIPPED = ("fleet-overview", "detections", "policy-blocks", "models-and-prompts")

PANEL = """title: Mine
panels:
  - name: one
    title: One
    source: alerts
    query: |
      SELECT level, count(*) AS alerts FROM alerts WHERE :tenant IS NULL OR tenant = :tenant GROUP BY level
    mark: bar
    encoding:
      y: {field: level, type: nominal}
      x: {field: alerts, type: quantitative}
"""


def written(folder: Path, text: str, name: str = "mine.yml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def with_query(source: str, query: str) -> str:
    return f"""title: Mine
panels:
  - {{name: one, title: One, source: {source}, query: "{query}", mark: bar,
     encoding: {{y: {{field: a, type: nominal}}, x: {{field: b, type: quantitative}}}}}}
"""


def test_what_is_shipped_can_be_used() -> None:
    found = dashboards(Settings())
    assert found.faults == ()
    assert tuple(board.name for board in found.all) == SHIPPED


def test_a_site_adds_its_own_and_replaces_by_name(tmp_path: Path) -> None:
    written(tmp_path, PANEL)
    written(tmp_path, PANEL, "detections.yml")
    written(tmp_path, "title: [", "broken.yml")
    found = dashboards(Settings(dashboards={"folders": [tmp_path, tmp_path / "gone"]}))
    assert {board.name: board.title for board in found.all if board.title == "Mine"} == {
        "detections": "Mine",
        "mine": "Mine",
    }
    assert len(found.all) == 5
    assert len(found.faults) == 2


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("title: Mine", "title: Mine\ncolour: red", "mine.yml: colour: unknown key"),
        ("    mark: bar", "    mark: image", "panel 'one': mark: 'image' is no mark"),
        ("    mark: bar", "    marks: bar", "panel 'one': marks: unknown key"),
        (
            "    source: alerts",
            "    source: people",
            "panel 'one': source: Input should be 'events' or 'alerts'",
        ),
        ("name: one", "name: One!", "panel 'One!': name: String should match"),
        ("type: nominal}", "type: nominal, href: x}", "panel 'one': encoding.y.href: unknown key"),
        (
            "type: nominal}",
            "type: nominal, axis: {labelExpr: 'x'}}",
            "encoding.y: 'labelExpr' is not allowed",
        ),
        ("type: nominal}", "}", "encoding.y: a type is missing"),
        ("      x: {field: alerts, type: quantitative}\n", "", "encoding: x and y are needed"),
        ("title: Mine", "title: Mine\ntitle: Yours", "the key 'title' is there twice"),
        ("title: Mine", "title: Mine\nname: other", "a dashboard's name is its file's"),
        ("GROUP BY level", "; DROP TABLE alerts", "query: ';' is not allowed in it"),
    ],
)
def test_a_fault_is_told_with_file_panel_and_place(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(DashboardError) as error:
        read(written(tmp_path, PANEL.replace(old, new, 1)))
    assert told in str(error.value)
    assert str(tmp_path / "mine.yml") in str(error.value)


TENANT = "{tenant:Nullable(String)}"


@pytest.mark.parametrize(
    ("source", "query", "told"),
    [
        ("events", f"SELECT 1 AS a, 2 AS b FROM url('http://evil.example') WHERE {TENANT} IS NULL", "'url'"),
        ("events", f"SELECT * FROM file('/etc/passwd') WHERE {TENANT} IS NULL", "'file'"),
        ("events", f"SELECT * FROM system.users WHERE {TENANT} IS NULL", "'system.users'"),
        ("events", f"SELECT * FROM events, system.users WHERE {TENANT} IS NULL", "by comma"),
        ("events", f"SELECT {TENANT} FROM events INTO OUTFILE 'x'", "'INTO OUTFILE'"),
        ("events", f"SELECT {TENANT} FROM events SETTINGS readonly = 0", "'SETTINGS'"),
        ("events", f"INSERT INTO events SELECT {TENANT}", "must begin with SELECT"),
        ("events", "SELECT agent_id AS a, 1 AS b FROM events", "keeps tenants apart"),
        ("alerts", "SELECT * FROM people WHERE :tenant IS NULL", "'people'"),
        ("alerts", "SELECT * FROM api_keys JOIN alerts WHERE :tenant IS NULL", "'api_keys'"),
        ("alerts", "SELECT load_extension('x') FROM alerts WHERE :tenant IS NULL", "'load_extension'"),
        ("alerts", "SELECT level AS a, 1 AS b FROM alerts", "keeps tenants apart"),
    ],
)
def test_a_query_reads_known_tables_of_one_tenant_only(
    tmp_path: Path, source: str, query: str, told: str
) -> None:
    with pytest.raises(DashboardError) as error:
        read(written(tmp_path, with_query(source, query)))
    assert told in str(error.value)


def test_the_state_database_gives_only_what_dashboards_may_read(stand: Stand) -> None:
    file = stand.settings.state_file
    for query in (
        "SELECT secret_hash FROM api_keys",
        "DELETE FROM alerts",
        "SELECT name FROM sqlite_master",
        "PRAGMA user_version",
        "ATTACH DATABASE 'x' AS x",
    ):
        with pytest.raises(PanelError):
            ask_state(query, {}, file)
    assert ask_state("SELECT count(*) AS alerts FROM alerts", {}, file) == [{"alerts": 0}]


def test_a_query_without_end_is_ended(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.dashboards.querying.MOST_SECONDS", 0.2)
    endless = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    begun = time.monotonic()
    with pytest.raises(PanelError, match=r"no answer within 0\.2 s"):
        ask_state(endless, {}, stand.settings.state_file)
    assert time.monotonic() - begun < 5


def test_windows_are_those_of_the_queue_and_begin_with_a_whole_step() -> None:
    assert {name: seconds for name, (seconds, _) in STEPS.items()} == RANGES
    assert {step for _, step in STEPS.values()} == set(UNITS)
    window = Window.ending("24h", 1_800_000_123_000_001)
    assert window.since % window.step == 0
    assert 0 <= window.until - 86_400 * SECOND - window.since < window.step


def test_every_event_type_has_a_colour() -> None:
    assert set(PALETTES["event-type"]) == set(EVENT_TYPES)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), b"x", datetime.now(UTC), HOSTILE * 50, None, 3]
)
def test_whatever_a_query_gives_is_short_plain_json(value: Any) -> None:
    shown = harmless(value)
    assert shown is None or isinstance(shown, int | str)
    assert not isinstance(shown, str) or (len(shown) <= 80 and shown.isprintable())


AGENT = "dash-agent"


@pytest.fixture
def filled(stand: Stand, store: EventStore, request: pytest.FixtureRequest) -> Stand:
    """Known figures: 4 calls of which 1 is denied and 1 fails, in a tenant of the test's own."""
    begun = datetime.now(UTC) - timedelta(hours=2)
    tenant = f"t-{abs(hash(request.node.name)) % 10**8}"

    def told(kind: str, number: int, **columns: Any) -> Any:
        at = begun + timedelta(minutes=number)
        name = f"{tenant}-{kind}-{number}"
        return event(kind, tenant=tenant, agent_id=AGENT, timestamp=at, event_id=name, **columns)

    call = {"tool_name": HOSTILE, "tool_call_id": "c1"}
    denied = {"policy_id": "p1", "policy_decision": "deny", "outcome": "blocked", "policy_reason": HOSTILE}
    model = {"model_id": "m", "model_version": "1", "prompt_hash": "abc"}
    events = [
        told("model.invoked", 1, input_tokens=100, output_tokens=10, **model),
        told("model.invoked", 2, input_tokens=50, output_tokens=5, **model),
        told("tool.executed", 3, tool_name="search", outcome="success"),
        told("tool.executed", 4, tool_name="search", outcome="failure"),
        told("policy.checked", 5, **denied, **call),
        told("tool.executed", 6, outcome="blocked", **call),
        told("tool.executed", 7, tool_name=HOSTILE, outcome="success", revision=0),
    ]
    segment = 1_000_000 + abs(hash(tenant)) % 10**6
    store.insert(placed(pa.Table.from_batches([arrow_batch(events)]), segment), token=tenant)
    verdicts = ("true_positive", "true_positive", "benign_positive", "false_positive", "duplicate", None)
    stand.file(*(finding(f"v{n}", tenant=tenant, session_id=f"v{n}") for n in range(len(verdicts))))
    with stand.state.write() as session:
        alerts = session.query(Alert).order_by(Alert.session_id).all()
        for alert, verdict in zip(alerts, verdicts, strict=True):
            if verdict is not None:
                alert.status, alert.verdict = "closed", verdict
                at = alert.created_at + 600 * SECOND
                told_by = {"actor": "bea", "field": "status", "reason": ""}
                session.add(AlertChange(alert_id=alert.id, at=at, old="new", new="closed", **told_by))
    stand.tenant = tenant  # type: ignore[attr-defined]
    return stand


def rows(client: TestClient, stand: Stand, name: str, span: str = "24h") -> dict[str, list[dict[str, Any]]]:
    tenant = stand.tenant  # type: ignore[attr-defined]
    answer = client.get(f"/api/v1/dashboards/{name}", params={"range": span, "tenant": tenant})
    assert answer.status_code == 200, answer.text
    assert [panel["problem"] for panel in answer.json()["panels"] if panel["problem"]] == []
    return {panel["name"]: panel["rows"] for panel in answer.json()["panels"]}


def test_the_fleet_is_counted_exactly(filled: Stand, browser: Browser) -> None:
    found = rows(browser, filled, "fleet-overview")
    by_type: dict[str, int] = {}
    for row in found["events-by-type"]:
        by_type[row["event_type"]] = by_type.get(row["event_type"], 0) + row["events"]
    assert by_type == {"model.invoked": 2, "tool.executed": 4, "policy.checked": 1}
    assert {row["agent"] for row in found["busiest-agents"]} == {AGENT}
    assert sum(row["calls"] for row in found["tool-calls-by-outcome"] if row["outcome"] == "failure") == 1


def test_precision_is_that_of_the_alerts_that_say_something(filled: Stand, browser: Browser) -> None:
    found = rows(browser, filled, "detections")
    (one,) = found["precision-by-rule"]
    assert (one["judged"], one["precision"]) == (4, 0.5)
    assert {row["verdict"]: row["alerts"] for row in found["verdicts"]} == {
        "true positive": 2,
        "benign positive": 1,
        "false positive": 1,
        "duplicate": 1,
    }
    waited = {row["step"]: (row["median_minutes"], row["alerts"]) for row in found["time-to-respond"]}
    assert waited == {"acknowledge": (10.0, 5), "close": (10.0, 5)}


def test_a_denial_told_twice_counts_once(filled: Stand, browser: Browser) -> None:
    found = rows(browser, filled, "policy-blocks")
    assert [(row["agent"], row["denials"]) for row in found["denials-by-agent"]] == [(AGENT, 1)]
    assert [row["denials"] for row in found["denials-by-tool"]] == [1]
    assert found["denials-by-tool"][0]["tool"].isprintable()


def test_models_and_tokens_are_those_of_the_calls(filled: Stand, browser: Browser) -> None:
    found = rows(browser, filled, "models-and-prompts")
    assert [(row["version"], row["events"]) for row in found["models-in-use"]] == [("m 1", 2)]
    spent = {row["direction"]: row["tokens"] for row in found["tokens-by-agent"]}
    assert spent == {"in": 150, "out": 15}


@pytest.mark.parametrize("span", STEPS)
@pytest.mark.parametrize("name", SHIPPED)
def test_every_query_answers_over_every_span(filled: Stand, browser: Browser, name: str, span: str) -> None:
    rows(browser, filled, name, span)


def test_a_tenants_key_sees_its_tenant_whichever_it_asks_for(filled: Stand, stranger: TestClient) -> None:
    asked = {"tenant": filled.tenant}  # type: ignore[attr-defined]
    answer = stranger.get(
        "/api/v1/dashboards/fleet-overview", params=asked, headers=key(filled, "read", tenant="x")
    )
    assert all(panel["rows"] == [] for panel in answer.json()["panels"])


def test_the_pages_hold_chart_and_table_and_name_what_is_not_there(filled: Stand, browser: Browser) -> None:
    assert browser.get("/dashboards").headers["location"] == "/dashboards/fleet-overview"
    page = browser.get("/dashboards/policy-blocks").text
    assert page.count("hx-get=") == 5
    panel = browser.get("/dashboards/policy-blocks/reasons").text
    assert "data-chart=" in panel
    assert "<table" in panel
    assert "\u202e" not in panel
    assert "<img" not in panel
    for path in ("/dashboards/none", "/dashboards/detections/none", "/dashboards/detections/none.png"):
        assert browser.get(path).status_code == 404
    assert browser.get("/dashboards/detections?range=99y").status_code == 422


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_panel_is_a_picture(filled: Stand, browser: Browser, theme: str) -> None:
    answer = browser.get(f"/dashboards/policy-blocks/denials-by-tool.png?theme={theme}")
    assert answer.headers["content-type"] == "image/png"
    width, height = struct.unpack(">II", answer.content[16:24])
    assert 1_500 < width < 2_400
    assert 150 < height < 1_500
    assert 5_000 < len(answer.content) < 1_000_000
    by_key = key(filled, "read")
    assert (
        browser.get("/api/v1/dashboards/detections/verdicts.png", headers=by_key).content[:8] == png.SIGNATURE
    )


def test_an_alert_is_drawn_from_what_its_agent_did(filled: Stand) -> None:
    drawing = drawn_from(filled.readers)
    with filled.state.read() as session:
        alert = session.query(Alert).first()
        assert alert is not None
    assert drawing(alert) is None, "its agent has no events"
    alert.agent_id, alert.last_event_at = AGENT, now() - 6_000 * SECOND
    assert (drawing(alert) or b"").startswith(png.SIGNATURE)


def test_a_picture_that_fails_says_why() -> None:
    with pytest.raises(DrawingError, match="the picture failed: "):
        draw({"mark": "nothing"})
    with pytest.raises(DrawingError, match=r"longer than 0\.01 s"):
        draw({"mark": "bar"}, seconds=0.01)
    with pytest.raises(DrawingError):
        draw({"mark": "bar", "data": {"url": "http://127.0.0.1:1/x.json"}, "encoding": {}})


def test_shipped_files_say_what_each_panel_is() -> None:
    for file in sorted(shipped_dashboards().glob("*.yml")):
        board: Dashboard = read(file)
        assert board.description
        assert all(panel.description for panel in board.panels)
