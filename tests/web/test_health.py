"""What machines ask."""

from __future__ import annotations

from starlette.testclient import TestClient

from monitor.store.state import Process
from tests.web.conftest import key
from tests.web.seeding import Stand, beats, finding, seed


def test_it_lives(stranger: TestClient) -> None:
    assert stranger.get("/healthz").json() == {"status": "ok"}


def test_it_is_ready_only_while_the_other_processes_show_life(stand: Stand, stranger: TestClient) -> None:
    answer = stranger.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.json()["reasons"]) == 2
    beats(stand.state)
    assert stranger.get("/readyz").status_code == 200
    with stand.state.write() as session:
        detection = session.get(Process, "detection")
        assert detection
        detection.beat_at -= 60_000_000
    assert stranger.get("/readyz").json()["reasons"] == [
        "the detection process has shown no sign of life for 60 s (limit 10 s); see its log"
    ]


def test_without_its_databases_it_is_not_ready_and_says_which(stand: Stand, stranger: TestClient) -> None:
    beats(stand.state)
    stand.state.close()
    stand.settings.state_file.rename(stand.settings.data / "gone.db")
    for suffix in ("-wal", "-shm"):
        stand.settings.state_file.with_name(f"state.db{suffix}").unlink(missing_ok=True)
    assert "state database" in stranger.get("/readyz").json()["detail"]
    assert stranger.get("/healthz").status_code == 200


def test_metrics_show_every_process_and_every_queue(stand: Stand, stranger: TestClient) -> None:
    seed(stand)
    local = TestClient(stand.app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000))
    text = local.get("/metrics").text
    assert 'watchkeeper_events{process="edge"} 184220.0' in text
    assert "# TYPE watchkeeper_rejected_total counter" in text
    assert 'watchkeeper_alerts{level="critical",status="new"} 1.0' in text
    assert 'watchkeeper_orders{state="contained"} 1.0' in text
    assert 'watchkeeper_deliveries{channel="slack",state="waiting"} 1.0' in text
    assert 'watchkeeper_heartbeat_age_seconds{process="detection"}' in text


def test_from_elsewhere_metrics_take_a_key(stand: Stand, stranger: TestClient) -> None:
    stand.file(finding())
    sender, reader = key(stand, "ingest"), key(stand, "read")
    assert stranger.get("/metrics").status_code == 401
    assert stranger.get("/metrics", headers=sender).status_code == 403
    assert "watchkeeper_alerts" in stranger.get("/metrics", headers=reader).text


def test_a_proxy_or_a_rebound_name_on_this_machine_is_still_elsewhere(stand: Stand) -> None:
    local = TestClient(stand.app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000))
    assert local.get("/metrics").status_code == 200
    assert local.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 401
    assert local.get("/metrics", headers={"Host": "rebound.example"}).status_code == 401
